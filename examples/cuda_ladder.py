"""Compares the rungs of the convolution on a GPU (kernels/README.md):

    python examples/cuda_ladder.py [cuda_ladder.png]

On a GPU, each rung is timed. Without one, its costs for a multiply-add follow from the sizes of its tiles: the bytes
to load from memory or the second-level cache, and the instructions of a thread.

According to its data sheet, an H100 does 33 trillion multiply-adds a second in float32. With the tensor cores'
instruction used here, others measured about 150 trillion. Its memory delivers 3 trillion bytes a second. So each byte
must be used for 11 or 50 multiply-adds, or the arithmetic waits. Caches help; reuse helps more.
"""

import sys
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinysrgan.ops.cuda import conv_halo, conv_tf32, convolution
from tinysrgan.ops.cuda.conv_tiled import TILES, tile
from tinysrgan.ops.cuda.geometry import geometry
from tinysrgan.ops.device import choose_device

# The layers that take most of SRGAN's time: image, filter.
LAYERS = {
    "residual block\n3x3, 64 to 64, 32x32": ((16, 32, 32, 64), (3, 3, 64, 64)),
    "upscale block\n3x3, 64 to 256, 64x64": ((16, 64, 64, 64), (3, 3, 64, 256)),
    "VGG19\n3x3, 256 to 256, 32x32": ((16, 32, 32, 256), (3, 3, 256, 256)),
}
REASONS = {
    "reference": "One thread computes one element. It loads two factors for each multiplication and reuses neither.",
    "tiled": "A block shares a tile, and a thread computes up to 64 elements: few loads for many multiplications.",
    "tf32": "One instruction of a warp does 1024 multiply-adds, while asynchronous copies load the next tiles.",
    "halo": "The nine taps of a 3x3 filter read the same tile of the image, so it is loaded only once.",
}
# A launch takes Python 30 to 50 microseconds, as long as some kernels take, so launches are timed in a row.
ROUNDS, LAUNCHES = 5, 30


class Cost(NamedTuple):
    """The cost of a multiply-add: bytes loaded into the multiprocessor, and instructions of a thread."""

    bytes: float
    instructions: float


def cost(rung: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> Cost:
    """The cost of a rung, without address arithmetic and the copies: from the second rung on, a few per cent."""
    g = geometry(x_shape, w_shape, 1)
    taps, slice_depth = g.R * g.S, 32
    if rung == "reference":  # 32 threads along K share an element of x
        return Cost(4 * (1 + 32) / 32, 3)
    if rung == "tiled":  # a thread reads four elements at a time
        t = TILES[tile(g.N * g.P * g.Q, g.K, 4)]
        reads = (t.thread_rows + t.thread_columns) / 4
        return Cost(4 * (t.rows + t.columns) / (t.rows * t.columns), 1 + reads / (t.thread_rows * t.thread_columns))
    rows, columns, warp_rows, warp_columns = 128, 64, 64, 32
    # For every 8 of the depth, a warp reads and rounds its factors, 32 at a time, and multiplies tiles of 16 x 8.
    read = 8 * (warp_rows + warp_columns) / 32
    products = warp_rows / 16 * warp_columns / 8
    instructions = 32 * (2 * read + products) / (warp_rows * warp_columns * 8)
    if rung == "tf32":
        return Cost(4 * (rows + columns) / (rows * columns), instructions)
    # For a column of three taps, it reads 6 lines of the image and three taps' weights, and rounds only the weights.
    lines, weights = 8 * 6 * 16 / 32, 8 * g.R * warp_columns / 32
    instructions = 32 * (lines + 2 * weights + g.R * products) / (warp_rows * warp_columns * 8 * g.R)
    image = (8 + g.R - 1) * (16 + g.S - 1) * slice_depth  # 8 x 16 pixels and their halo
    return Cost(4 * (image + taps * slice_depth * columns) / (rows * columns * taps * slice_depth), instructions)


def speed(cupy: ModuleType, rung: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> float:
    """TFLOP/s, two operations for each multiply-add: the median of 5 times that 30 launches take in a row."""
    rng = np.random.default_rng(0)
    x, w = (cupy.asarray(rng.standard_normal(shape, np.float32)) for shape in (x_shape, w_shape))
    convolve: dict[str, Any] = {
        "reference": lambda: convolution.conv2d(x, w, exact=True),
        "tiled": lambda: convolution.conv2d(x, w, exact=True),
        "tf32": lambda: conv_tf32.conv2d(x, w, 1, None, None, None),
        "halo": lambda: conv_halo.conv2d(x, w, None, None, None),
    }
    usual = convolution.TINY, conv_halo.takes
    convolution.TINY = 2**62 if rung == "reference" else 0
    conv_halo.takes = lambda g: False  # conv_tf32 would call conv_halo otherwise
    times = []
    for _ in range(1 + ROUNDS):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        for _ in range(LAUNCHES):
            convolve[rung]()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end) / 1000 / LAUNCHES)
    convolution.TINY, conv_halo.takes = usual
    return 2 * x.size // x_shape[3] * w.size / median(times[1:]) / 1e12


def main() -> None:
    module, where = choose_device()
    on_gpu = module is not np
    print(f"Timed {where}." if on_gpu else f"Counted, not timed: {where}.")
    print(f"\n{'':38s}{'rung':12s}" + ("TFLOP/s" if on_gpu else "bytes   instructions, for a multiply-add"))
    found: dict[str, dict[str, float]] = {}
    for layer, shapes in LAYERS.items():
        found[layer] = {}
        for rung in REASONS:
            label = layer.replace("\n", ": ")
            if on_gpu:
                found[layer][rung] = speed(module, rung, *shapes)
                print(f"{label:38s}{rung:12s}{found[layer][rung]:7.2f}")
            else:
                costs = cost(rung, *shapes)
                found[layer][rung] = costs.bytes
                print(f"{label:38s}{rung:12s}{costs.bytes:5.3f}   {costs.instructions:.3f}")
    print("\n" + "\n".join(f"{rung + ':':12s}{reason}" for rung, reason in REASONS.items()))
    if len(sys.argv) > 1:
        draw(found, "TFLOP/s, more is faster" if on_gpu else "bytes for a multiply-add, fewer are better", sys.argv[1])


def draw(found: dict[str, dict[str, float]], label: str, path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    for group, ladder in enumerate(found.values()):
        for i, ((rung, value), colour) in enumerate(
            zip(ladder.items(), ("#9a9a9a", "#9cc3e2", "#1f6fb2", "#c8501e"), strict=True)
        ):
            place = group + 0.2 * (i - 1.5)
            axes.bar(place, value, 0.19, color=colour)
            axes.text(place, value * 1.05, f"{value:.2g}\n{rung}", ha="center", fontsize=7)
    axes.set_yscale("log")
    axes.set_ylim(top=3 * max(max(ladder.values()) for ladder in found.values()))
    axes.set_xticks(range(len(found)), found)
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    print("drawn in", path)


if __name__ == "__main__":
    main()
