"""Trains one of the benchmark's networks with PyTorch on the CPU, as many steps as each line on stdin says."""
import json
import sys
import time

import torch
from torch import nn

name, pixels, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(1)
BATCH = 32


def conv(cin, cout, kernel, stride):
    """'same' padding as TensorFlow has it, for even sizes: with stride 2 one pixel more after than before."""
    total = kernel - stride
    before, after = total // 2, total - total // 2
    layers = [nn.Conv2d(cin, cout, kernel, stride, padding=before if before == after else 0), nn.ReLU()]
    return layers if before == after else [nn.ZeroPad2d((before, after, before, after)), *layers]


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(32, 128, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def seed_network():
    side = pixels // 16
    return nn.Sequential(
        *conv(3, 64, 3, 1), *conv(64, 64, 3, 2), nn.MaxPool2d(2),
        *conv(64, 128, 3, 1), *conv(128, 128, 3, 2), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(side * side * 128, 256), nn.ReLU(), nn.Linear(256, 1),
    )


def digits():
    return nn.Sequential(
        *conv(1, 16, 5, 2), *conv(16, 32, 3, 2),
        nn.Flatten(), nn.Linear(7 * 7 * 32, 64), nn.ReLU(), nn.Linear(64, 10),
    )


def mlp():
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


NETWORKS = {
    'seed': (seed_network, lambda: torch.rand(BATCH, 3, pixels, pixels), 1),
    'digits': (digits, lambda: torch.rand(BATCH, 1, 28, 28), 10),
    'mlp': (mlp, lambda: torch.rand(BATCH, 784), 10),
    'lstm': (Lstm, lambda: torch.rand(BATCH, 32, 32), 10),
}
build, inputs, outputs = NETWORKS[name]
model, x = build(), inputs()
if outputs == 1:
    y, loss_of = torch.tensor([[float(i % 2)] for i in range(BATCH)]), nn.BCEWithLogitsLoss()
else:
    y, loss_of = torch.tensor([i % outputs for i in range(BATCH)]), nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)


def step():
    start = time.perf_counter()
    optimizer.zero_grad()
    loss = loss_of(model(x), y)
    loss.backward()
    optimizer.step()
    loss.item()
    return (time.perf_counter() - start) * 1000


def peak_mib():
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('VmHWM')) / 1024


def use(layout):
    """Images and filters in this order of axes: which one is faster depends on the processor."""
    global model, x
    model, x = model.to(memory_format=layout), x.to(memory_format=layout)
    return min(step() for _ in range(3))


if x.dim() == 4:
    layouts = [torch.contiguous_format, torch.channels_last]
    use(min(layouts, key=use))

for line in sys.stdin:
    times = [step() for _ in range(int(line))]
    print(json.dumps({'times': times, 'peakMiB': peak_mib()}), flush=True)
