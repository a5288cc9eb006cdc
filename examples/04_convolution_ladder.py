"""Lesson 4: one convolution, computed in five ways, from four loops to Winograd.

    python examples/04_convolution_ladder.py [picture.png]

Times the rungs of the ladder in tinysrgan/ops/conv side by side. All give the same result, up to rounding; each is at
most a page of NumPy. What they save is not arithmetic at first, but waiting: for Python, and for memory.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np

from tinysrgan.ops.conv import few_outputs, im2col, im2col_blocked, naive, winograd
from tinysrgan.ops.parallel import single_threaded_blas

Convolve = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, w -> y

RUNGS: dict[str, tuple[Convolve, str]] = {
    "naive": (
        naive.conv2d,
        """The definition: one small product, (N, C) times (C, K), for every output pixel and every tap of the filter.
        Python takes longer to start each product than the CPU to compute it.""",
    ),
    "im2col": (
        im2col.conv2d,
        """The window of every output pixel becomes a row of a matrix, and the convolution one product of two large
        matrices, which BLAS computes near the CPU's limit. But the rows have R S times as many elements as the
        image, and all of them are written to memory and read again.""",
    ),
    "bands": (
        im2col_blocked.conv2d,
        """The same for one band of rows at a time, whose matrix fits in the cache. Every core processes different
        bands, so the copying runs in parallel as well as the product.""",
    ),
    "winograd": (
        winograd.conv2d,
        """3x3 filters only. Tiles of 4x4 outputs are transformed, which leaves a quarter of the multiplications. It
        costs some additions before and after, and one digit of precision.""",
    ),
    "thin": (
        few_outputs.conv2d,
        """For few output channels: a product with a matrix of 3 columns is slow. So one product multiplies every
        pixel by all taps first. Then the results are shifted and added, instead of the windows.""",
    ),
}

# name: x (N, H, W, C), w (R, S, C, K), the rungs
SHAPES = {
    "residual block\n3x3, 64 to 64, 32x32": ((4, 32, 32, 64), (3, 3, 64, 64), "naive im2col bands winograd"),
    "upscale block\n3x3, 64 to 256, 64x64": ((1, 64, 64, 64), (3, 3, 64, 256), "naive im2col bands winograd"),
    "VGG19\n3x3, 256 to 256, 32x32": ((1, 32, 32, 256), (3, 3, 256, 256), "naive im2col bands winograd"),
    "last layer\n9x9, 64 to 3, 64x64": ((1, 64, 64, 64), (9, 9, 64, 3), "naive im2col bands thin"),
}


def timed(convolve: Convolve, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, float]:
    """The result, and the fastest of a third of a second's calls, at least three; a slow function is called once."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.3:
        begin = time.perf_counter()
        y = convolve(x, w)
        times.append(time.perf_counter() - begin)
        if times[0] > 0.3:
            break
    return y, min(times)


rng = np.random.default_rng(0)
speeds: dict[str, dict[str, float]] = {}
errors: dict[str, float] = {}  # the largest of each rung
print(f"{'':38s}{'rung':10s}{'ms':>8s}{'GFLOP/s':>9s}   error against float64")
for shape, (x_shape, w_shape, names) in SHAPES.items():
    x = rng.standard_normal(x_shape, np.float32)
    w = rng.standard_normal(w_shape, np.float32)
    operations = 2 * x.size // x.shape[3] * w.size  # two for each multiply-add of the definition
    exact = im2col.conv2d(x.astype(np.float64), w.astype(np.float64))
    speeds[shape] = {}
    for name in names.split():
        convolve = RUNGS[name][0]
        # im2col relies on the threads of BLAS; the later rungs have worker threads, as in training.
        with nullcontext() if name in ("naive", "im2col") else single_threaded_blas():
            y, time_taken = timed(convolve, x, w)
        speeds[shape][name] = operations / time_taken / 1e9
        error = np.abs(y - exact).max() / np.abs(exact).max()
        errors[name] = max(error, errors.get(name, 0))
        label = shape.replace("\n", ": ")
        print(f"{label:38s}{name:10s}{1000 * time_taken:8.1f}{speeds[shape][name]:9.1f}   {error:.0e}")

print("\nGFLOP/s count the definition's operations. Winograd needs fewer, so it may exceed the CPU's limit.")
print("Why each is faster:")
for name, (_, reason) in RUNGS.items():
    print(f"  {name + ':':10s}" + "\n            ".join(line.strip() for line in reason.split("\n")))

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(RUNGS, ("#9a9a9a", "#9cc3e2", "#1f6fb2", "#c8501e", "#e0a030"), strict=True))
    for group, ladder in enumerate(speeds.values()):
        for i, (name, speed) in enumerate(ladder.items()):
            place = group + 0.2 * (i - 1.5)
            axes.bar(place, speed, 0.19, color=colours[name])
            axes.text(place, speed * 1.05, f"{speed:.3g}\n{name}", ha="center", fontsize=7)
    axes.set_yscale("log")
    axes.set_ylim(top=2.5 * max(max(ladder.values()) for ladder in speeds.values()))
    axes.set_xticks(range(len(speeds)), speeds)
    axes.set_ylabel("GFLOP/s, more is faster")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[1], dpi=120)
    print("drawn in", sys.argv[1])
