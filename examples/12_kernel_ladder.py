"""Lesson 12: one convolution on a GPU, from one thread for each output to tensor cores.

    python examples/12_kernel_ladder.py [picture.png]

Multiplying is cheap on a GPU, fetching the factors is not: an H100 does 33 trillion multiply-adds a second in float32
(about 150 trillion on tensor cores, as others measured), but its memory delivers 3 trillion bytes. So each byte must
serve 11 (50) multiply-adds. The ladder of kernels/ climbs there. Most of the bytes that it counts come from the
second-level cache, which is faster than memory. No GPU is needed: the emulator of the tests runs the unmodified kernels
on the CPU, thread by thread (it needs g++). ``cuda_ladder.py`` counts the loads and, on a GPU, times them. Read next:
kernels/README.md and kernels/*.cu.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from cuda_ladder import LAYERS, REASONS, cost, draw

from tinysrgan.ops.conv import im2col
from tinysrgan.ops.cuda import conv_halo, conv_tf32, convolution

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import RawKernel, cupy_on_cpu

# ---------------------------------------------------------------- the kernels, run on the CPU

rng = np.random.default_rng(0)
x, w = rng.standard_normal((1, 16, 16, 32), np.float32), rng.standard_normal((3, 3, 32, 64), np.float32)
exact = im2col.conv2d(x.astype(np.float64), w.astype(np.float64))
launches: list[tuple[str, int, int]] = []  # kernel, blocks, threads of a block
run_kernel = RawKernel.__call__


def recorded(self: RawKernel, grid: Any, block: Any, arguments: Any, **options: Any) -> None:
    launches.append((self.name, int(np.prod(grid)), int(np.prod(block))))
    run_kernel(self, grid, block, arguments, **options)


def convolve(cupy: Any, rung: str) -> np.ndarray:
    """The convolution on one rung; the switches keep the package from choosing a higher one by itself."""
    usual = convolution.TINY, conv_halo.takes
    convolution.TINY = 2**62 if rung == "reference" else 0
    conv_halo.takes = lambda g: False
    a, b = cupy.asarray(x), cupy.asarray(w)
    match rung:
        case "reference" | "tiled":
            y = convolution.conv2d(a, b, exact=True)
        case "tf32":
            y = conv_tf32.conv2d(a, b, 1, None, None, None)
        case "halo":
            y = conv_halo.conv2d(a, b, None, None, None)
    convolution.TINY, conv_halo.takes = usual
    return y.get()


error = {}
if runner.available:
    print(f"a 3x3 convolution, 32 to 64 channels, 16x16 pixels: {exact.size} elements of {w[..., 0].size} products")
    print(f"{'rung':12s}{'kernel':16s}{'blocks':>8s}{'threads':>9s}{'elements a thread':>19s}{'error':>9s}")
    RawKernel.__call__ = recorded
    with cupy_on_cpu() as cupy:
        for rung in REASONS:
            launches.clear()
            error[rung] = float(np.abs(convolve(cupy, rung) - exact).max() / np.abs(exact).max())
            name, blocks, threads = launches[0]
            share = exact.size / (blocks * threads)
            print(f"{rung:12s}{name:16s}{blocks:8d}{threads:9d}{share:19.0f}{error[rung]:9.0e}")
    RawKernel.__call__ = run_kernel
    print("Tensor cores round the factors to 10 bits, which costs three digits.\n")
else:
    print("g++ is not installed, so the kernels are not run, only counted.\n")

# ---------------------------------------------------------------- what a multiply-add costs

layer = "upscale block\n3x3, 64 to 256, 64x64"
costs = {rung: cost(rung, *LAYERS[layer]) for rung in REASONS}
print("the generator's 3x3 convolution from 64 to 256 channels, for each multiply-add:")
for rung, (loaded, instructions) in costs.items():
    print(f"{rung:12s}{loaded:6.3f} bytes ({1 / loaded:4.1f} multiply-adds a byte), {instructions:5.3f} instructions")
print("\n" + "\n".join(f"{rung + ':':12s}{reason}" for rung, reason in REASONS.items()))

if len(sys.argv) > 1:
    bytes_of = {name: {rung: cost(rung, *shapes).bytes for rung in REASONS} for name, shapes in LAYERS.items()}
    draw(bytes_of, "bytes for a multiply-add, fewer are better", sys.argv[1])
