"""PyTorch's side of `bench -- local-training`: the same networks, batch and optimizer, a line in, a JSON line out."""
import json
import resource
import sys
import time

import torch
from torch import nn

BATCH = 32


def say(answer):
    print(json.dumps(answer), flush=True)


class LastOfLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(32, 128, batch_first=True)
        self.out = nn.Linear(128, 10)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


def convolution(inputs, filters, kernel, stride, side):
    """'same' padding as Keras has it: what is odd goes to the end."""
    out = -(-side // stride)
    total = max((out - 1) * stride + kernel - side, 0)
    begin, end = total // 2, total - total // 2
    return [nn.ZeroPad2d((begin, end, begin, end)), nn.Conv2d(inputs, filters, kernel, stride), nn.ReLU()], out


def build(name):
    kind, _, side = name.partition("-")
    if kind in ("seed", "digits"):
        side = int(side)
        layers, shape, size = [], None, side
        if kind == "seed":
            channels, classes = 3, 2
            plan = [(64, 3, 1), (64, 3, 2), "pool", (128, 3, 1), (128, 3, 2), "pool"]
        else:
            channels, classes = 1, 10
            plan = [(16, 5, 2), (32, 3, 2)]
        inputs = channels
        for step in plan:
            if step == "pool":
                layers.append(nn.MaxPool2d(2))
                size //= 2
                continue
            filters, kernel, stride = step
            made, size = convolution(inputs, filters, kernel, stride, size)
            layers += made
            inputs = filters
        hidden = 256 if kind == "seed" else 64
        outputs = 1 if classes == 2 else classes
        layers += [nn.Flatten(), nn.Linear(inputs * size * size, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
        return nn.Sequential(*layers), (channels, side, side), classes
    if kind == "mlp":
        net = nn.Sequential(
            nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
        )
        return net, (784,), 10
    if kind == "lstm":
        return LastOfLstm(), (32, 32), 10
    raise SystemExit(f"there is no network {name!r}")


setup = json.loads(sys.argv[1])
torch.set_num_threads(setup["threads"])
torch.manual_seed(1)
device = "cuda" if setup.get("gpu") and torch.cuda.is_available() else "cpu"
model, shape, classes = build(setup["network"])
model = model.to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=setup["learningRate"])
x = torch.rand((BATCH, *shape), device=device)
labels = torch.arange(BATCH, device=device) % classes
if classes == 2:
    loss_of, y = nn.BCEWithLogitsLoss(), labels.float().reshape(BATCH, 1)
else:
    loss_of, y = nn.CrossEntropyLoss(), labels
where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
say({"description": f"PyTorch {torch.__version__}, {where}"})

for line in sys.stdin:
    if line.strip() == "peak":
        say({"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
        continue
    steps = int(line.split()[1])
    started = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
    say({"ms": (time.perf_counter() - started) * 1000 / steps})
