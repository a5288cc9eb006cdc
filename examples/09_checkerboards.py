"""Lesson 9: checkerboards, and how to start without them.

    python examples/09_checkerboards.py [picture.png]

To double its resolution, the generator makes four channels of each one and lays every four of them out as a 2x2 cell
(pixel shuffle). Four random filters give the four pixels of a cell different brightness, everywhere in the same
pattern: a checkerboard. ICNR starts the four filters equal, so that the first picture is a plain enlargement. Read
next: tinysrgan/layers/shape.py and initializers.py.
"""

import sys

import numpy as np

from tinysrgan import ops
from tinysrgan.core.paths import WEIGHTS
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.images import to_uint8
from tinysrgan.layers import Conv2D
from tinysrgan.layers.initializers import fan_in_uniform
from tinysrgan.losses import mean_squared_error
from tinysrgan.metrics.figures import save_picture, strip
from tinysrgan.models import Generator
from tinysrgan.optimizers.adam import Adam

# ---------------------------------------------------------------- pixel shuffle, on paper

x = np.array([0, 1, 2, 3]).reshape(1, 1, 1, 4)
print("one pixel with the channels", x.ravel(), "becomes the cell", ops.pixel_shuffle(x, 2)[0, :, :, 0].tolist())

# The older way to double, a transposed convolution, is the gradient of a convolution with stride 2. It adds up as many
# products for an output pixel as filter positions cover it, and 3x3 positions two pixels apart cover them unevenly:
covers = ops.conv2d_grad_input(np.ones((1, 3, 3, 1)), np.ones((3, 3, 1, 1)), (1, 6, 6, 1), 2)[0, :, :, 0].astype(int)
print("products for each pixel of a transposed 3x3 convolution with stride 2:", *covers[1:3].tolist(), "...\n")

# ---------------------------------------------------------------- two generators at their first step, and later


def checkerboard(images: np.ndarray, cell: int = 4) -> float:
    """The part of the pictures' variance that one pattern of cell x cell pixels, repeated everywhere, explains.

    images: (N, H, W, 3) whose sides are multiples of ``cell``.
    """
    n, h, w, _ = images.shape
    cells = images.reshape(n, h // cell, cell, w // cell, cell, 3)
    return float(cells.mean((0, 1, 3)).var(axis=(0, 1)).mean() / images.var())


def generator(icnr: bool) -> Generator:
    """A small x4 generator; without ICNR the convolutions before the two pixel shuffles start like all others."""
    net = Generator(1, 16, seed=0)
    rng = np.random.default_rng(1)
    for layer in net["upscale"].layers():
        if isinstance(layer, Conv2D) and not icnr:
            layer.w.value = fan_in_uniform(layer.w.value.shape, rng)
    return net


STEPS, BATCH = 24, 4
pairs = ImagePairs(sorted((WEIGHTS.parent / "data" / "qr").glob("mixed-*.png")), hr_size=64, seed=0)
lr, hr = pairs.batch(STEPS, BATCH)  # not among those that it trains on
nets = {"random": generator(icnr=False), "ICNR": generator(icnr=True)}
curves: dict[str, list[float]] = {name: [] for name in nets}
pictures: dict[str, list[np.ndarray]] = {name: [] for name in nets}
for name, net in nets.items():
    optimizer = Adam(net.parameters(), 2e-3)
    for step in range(STEPS + 1):
        if step in (0, STEPS):
            y = net.train().forward(lr)
            part = y[0, :32, :32]
            pictures[name].append(to_uint8(2 * (part - part.min()) / np.ptp(part) - 1))  # stretched to full contrast
        inputs, targets = pairs.batch(step, BATCH)
        y = net.forward(inputs)
        curves[name].append(checkerboard(y))
        net.backward(mean_squared_error(y, targets)[1])
        optimizer.step()

print("part of the pictures' variance that is a checkerboard, %")
print("step     " + "".join(f"{step:8d}" for step in range(0, STEPS + 1, 4)))
for name, curve in curves.items():
    print(f"{name:9s}" + "".join(f"{100 * value:8.2f}" for value in curve[::4]))
print("Training removes the pattern as well, but spends its first steps on it. ICNR starts where that ends.")

if len(sys.argv) > 1:
    titles = [f"{name}, step {step}" for step in (0, STEPS) for name in nets]
    row = [pictures[name][i] for i in (0, 1) for name in nets]
    large = [np.kron(image, np.ones((5, 5, 1), np.uint8)) for image in row]
    save_picture(strip([large], titles), sys.argv[1])
    print("drawn in", sys.argv[1])
