"""Lesson 11: folding a net for inference.

    python examples/11_folding.py [picture.png]

After training a net is only evaluated, and much of it can be calculated beforehand. Batch-norm in eval mode multiplies
and adds constants, which the convolution before it can do with other weights. A pixel shuffle only moves values, so the
convolution behind it can work before it, on a quarter of the pixels. The output stays the same to rounding. Read next:
tinysrgan/inference/fuse.py.
"""

import sys
import time

import numpy as np

from tinysrgan.core.paths import WEIGHTS
from tinysrgan.data.images import read_image, to_unit
from tinysrgan.formats.checkpoint import load_generator
from tinysrgan.inference.fuse import DepthToSpace, FusedConv, absorb_norm, before_shuffle, fuse
from tinysrgan.layers import BatchNorm, Conv2D, Layer, PixelShuffle
from tinysrgan.ops import exact
from tinysrgan.ops.parallel import single_threaded_blas

rng = np.random.default_rng(0)

# ---------------------------------------------------------------- batch-norm into the convolution before it

conv, norm = Conv2D(8, 8, 3, rng=rng).astype(np.float64), BatchNorm(8).astype(np.float64)
for tensor in norm.tensors().values():
    tensor.value = rng.uniform(0.5, 2, 8)  # as if trained
x = rng.standard_normal((1, 12, 12, 8))
w, b = absorb_norm(conv.w.value, conv.b.value, norm)
y = norm.eval().forward(conv.eval().forward(x))
norm_error = np.abs(FusedConv(w, b).forward(x) - y).max()
print("norm(x * w + b) = x * (w s) + (b - mean) s + beta, with s = gamma / sqrt(variance + epsilon) for each channel")
print(f"  largest difference: {norm_error:.0e}\n")

# ---------------------------------------------------------------- a 9x9 convolution in front of the pixel shuffle

tail = Conv2D(2, 3, 9, rng=rng).astype(np.float64).eval()
x = rng.standard_normal((1, 12, 12, 8))  # PixelShuffle makes (1, 24, 24, 2) of it
y = tail.forward(PixelShuffle(2).eval().forward(x))
folded = before_shuffle(FusedConv(tail.w.value, tail.b.value))
cells = x.reshape(1, 12, 12, 2, 4).swapaxes(3, 4).reshape(x.shape)  # fuse() has the cell's channels outermost
shuffle_error = np.abs(DepthToSpace().forward(folded.forward(cells)) - y).max()
print(f"after the shuffle: weights {tail.w.value.shape} on 24x24 pixels; before it: {folded.w.value.shape} on 12x12")
print(f"  largest difference: {shuffle_error:.0e}\n")

# ---------------------------------------------------------------- a generator that ships


def leaves(net: Layer) -> list[Layer]:
    return [layer for layer in net.layers() if not layer.children()]


def multiply_adds(net: Layer, x: np.ndarray) -> int:
    """Multiply-adds of the convolutions for an image: each weight is used once for every output pixel."""
    total = 0

    def counted(layer: Layer) -> None:
        forward = layer.forward

        def count(*arguments: np.ndarray) -> np.ndarray:
            nonlocal total
            y = forward(*arguments)
            total += y.size // y.shape[-1] * layer.w.value.size  # type: ignore[attr-defined]
            return y

        layer.forward = count  # type: ignore[method-assign]

    convolutions = [layer for layer in leaves(net) if isinstance(layer, Conv2D | FusedConv)]
    for layer in convolutions:
        counted(layer)
    net.forward(x)
    for layer in convolutions:
        del layer.forward
    return total


def milliseconds(net: Layer, x: np.ndarray) -> float:
    """The fastest of five passes."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        net.forward(x)
        times.append(time.perf_counter() - begin)
    return 1000 * min(times)


generator = load_generator(WEIGHTS / "qr_x4_srresnet.h5").eval()
fast = fuse(generator)
code = sorted((WEIGHTS.parent / "data" / "qr").glob("mixed-*.png"))[0]
lr = to_unit(np.asarray(read_image(code).convert("RGB").resize((32, 32))))[None]
with exact():  # without Winograd's rounding, so that the difference is folding's alone
    net_error = np.abs(fast.forward(lr) - generator.forward(lr)).max()
rows = {}
with single_threaded_blas():
    for name, net in (("as trained", generator), ("folded", fast)):
        rows[name] = len(leaves(net)), multiply_adds(net, lr) / 1e9, milliseconds(net, lr)
print(f"{'qr_x4_srresnet.h5, 32x32 to 128x128':41s}{'layers':>10s}{'billion multiply-adds':>25s}{'ms':>8s}")
for name, (layers, work, ms) in rows.items():
    print(f"  {name:39s}{layers:10d}{work:25.2f}{ms:8.1f}")
print(f"largest difference of the pictures, whose values are -1 to 1: {net_error:.0e}")
print("The multiply-adds even grow (the 5x5 filter has zeros in it): what is saved are passes over memory.")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2), layout="constrained")
    for i, (axes, label) in enumerate(
        zip(figure.subplots(1, 3), ("layers", "billion multiply-adds", "ms"), strict=True)
    ):
        axes.barh(list(rows), [row[i] for row in rows.values()], color=["#9a9a9a", "#1f6fb2"])
        axes.bar_label(axes.containers[0], fmt="%.3g", padding=2)
        axes.set(xlabel=label, xlim=(0, 1.4 * max(row[i] for row in rows.values())))
        axes.invert_yaxis()
    figure.savefig(sys.argv[1], dpi=100)
    print("drawn in", sys.argv[1])
