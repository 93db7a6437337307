"""The seed recipe in the manner of Keras's ImageDataGenerator, with Pillow and SciPy: what bench/pipeline.ts compares with.

Usage: pipeline_reference.py FOLDER PROCESSES [keep]. Says "ready", then answers each line on stdin with the seconds that
one pass over the folder took. With "keep", images are decoded once, before that, to arrays that can be transformed as
they are. Every process makes whole batches of its own share and keeps them to itself: nothing is sent back, so the
figure is better than what a training process would see.
"""
import io
import math
import multiprocessing
import os
import sys
import time

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE, BATCH = 224, 32
SHEAR, ZOOM, RESCALE = 0.2, 0.2, 1.0 / 255


KEPT = {}


def load(path):
    with open(path, "rb") as file:
        image = Image.open(io.BytesIO(file.read()))
        if image.mode != "RGB":
            image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.NEAREST)
    return np.asarray(image, dtype="float32")


def draw(random):
    shear = random.uniform(-SHEAR, SHEAR)
    zx, zy = random.uniform(1 - ZOOM, 1 + ZOOM, 2)
    flip = random.random_sample() < 0.5
    random.random_sample()
    return shear, zx, zy, flip


def matrix_of(shear, zx, zy):
    s = math.radians(shear)
    sheared = np.array([[1, -math.sin(s), 0], [0, math.cos(s), 0], [0, 0, 1]])
    moved = np.dot(sheared, np.diag([zx, zy, 1.0]))
    o = SIZE / 2 - 0.5
    to, fro = np.array([[1, 0, o], [0, 1, o], [0, 0, 1.0]]), np.array([[1, 0, -o], [0, 1, -o], [0, 0, 1.0]])
    centred = np.dot(np.dot(to, moved), fro)
    centred[:, [0, 1]] = centred[:, [1, 0]]
    centred[[0, 1]] = centred[[1, 0]]
    return centred


def augment(image, shear, zx, zy, flip):
    m = matrix_of(shear, zx, zy)
    planes = np.rollaxis(image, 2, 0)
    moved = [
        ndimage.affine_transform(plane, m[:2, :2], m[:2, 2], order=1, mode="nearest", cval=0.0)
        for plane in planes
    ]
    image = np.rollaxis(np.stack(moved, axis=0), 0, 3)
    if flip:
        image = image[:, ::-1, :]
    image *= RESCALE
    return image


def run(share):
    files, seed = share
    random = np.random.RandomState(seed)
    total = 0.0
    for at in range(0, len(files), BATCH):
        names = files[at : at + BATCH]
        batch = np.zeros((len(names), SIZE, SIZE, 3), dtype="float32")
        for i, name in enumerate(names):
            batch[i] = augment(KEPT[name] if name in KEPT else load(name), *draw(random))
        total += float(batch[0, 0, 0, 0])
    return total


def main():
    folder, processes = sys.argv[1], int(sys.argv[2])
    files = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    if sys.argv[3:] == ["keep"]:
        KEPT.update((file, load(file)) for file in files)
    # Processes that begin here share what was kept.
    pool = multiprocessing.Pool(processes) if processes > 1 else None
    print("ready", flush=True)
    for line in sys.stdin:
        seed = int(line)
        began = time.perf_counter()
        if pool is None:
            run((files, seed))
        else:
            pool.map(run, [(files[k::processes], seed + k) for k in range(processes)], chunksize=1)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
