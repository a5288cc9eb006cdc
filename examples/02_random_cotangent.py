"""Lesson 2: why a gradient check needs a random cotangent.

    python examples/02_random_cotangent.py [picture.png]

``backward`` takes the cotangent dy, the gradient of the loss with respect to the layer's output. A check must choose
one. The usual choice is a loss that sums the outputs, so that dy is all ones. For batch-norm that loss is constant: the
outputs of a channel always sum to N H W beta, whatever the input. Its true gradient is zero, so a backward pass that
returns zeros passes. Read next: tinysrgan/gradcheck/__init__.py and tests/layers/test_mutants.py.
"""

import sys

import numpy as np

from tinysrgan.core.device import Array
from tinysrgan.layers import BatchNorm

rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, (4, 6, 6, 3))


class ReturnsZeros(BatchNorm):
    """Batch-norm whose backward pass returns zeros: a net would not learn anything below it."""

    def backward(self, dy: Array) -> Array:
        return 0 * super().backward(dy)


class WithoutStatistics(BatchNorm):
    """Batch-norm whose backward pass forgets that mean and variance depend on x: dx = gamma / std dy."""

    def backward(self, dy: Array) -> Array:
        _, norm = self._saved
        super().backward(dy)
        return self.gamma.value / (norm.variance + norm.epsilon) ** 0.5 * dy


class WithoutVariance(BatchNorm):
    """Batch-norm whose backward pass forgets that the variance depends on x: dx = gamma / std (dy - mean(dy))."""

    def backward(self, dy: Array) -> Array:
        _, norm = self._saved
        super().backward(dy)
        return self.gamma.value / (norm.variance + norm.epsilon) ** 0.5 * (dy - dy.mean((0, 1, 2)))


def check(layer: BatchNorm, dy: Array, step: float = 1e-5) -> tuple[float, float]:
    """The slope of L = sum(dy y) along one random direction v: measured by a central difference, and by backward."""
    layer.astype(np.float64)
    v = np.random.default_rng(1).standard_normal(x.shape)
    ahead, behind = (float((layer.forward(x + s * v) * dy).sum()) for s in (step, -step))
    layer.forward(x)
    return (ahead - behind) / (2 * step), float((layer.backward(dy) * v).sum())


# The sum of all outputs is constant: here it is for three different inputs.
sums = [BatchNorm(3).astype(np.float64).forward(scale * x + scale).sum() for scale in (1, 10, 100)]
print("the sum of batch-norm's outputs, for three inputs:", ", ".join(f"{s:.1e}" for s in sums))

cotangents = {"ones": np.ones_like(x), "random": rng.standard_normal(x.shape)}
layers = {
    "right": BatchNorm,
    "returns zeros": ReturnsZeros,
    "without the variance": WithoutVariance,
    "without mean and variance": WithoutStatistics,
}
print(f"\n{'backward':28s}{'cotangent':12s}{'measured':>12s}{'by backward':>13s}")
difference: dict[tuple[str, str], float] = {}
for name, kind in layers.items():
    for cotangent, dy in cotangents.items():
        measured, claimed = check(kind(3), dy)
        difference[name, cotangent] = abs(measured - claimed)
        verdict = "passes" if difference[name, cotangent] < 1e-6 else "CAUGHT"
        print(f"{name:28s}{cotangent:12s}{measured:12.6f}{claimed:13.6f}   {verdict}")

unnoticed = [name for name in layers if name != "right" and difference[name, "ones"] < 1e-6]
print(f"\nOnes do not notice: {', '.join(unnoticed)}. The random cotangent notices all three.")
print("Softmax has the same trap (its outputs sum to 1), and so has every layer that normalizes.")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, (cotangent, colour) in enumerate((("ones", "#c8501e"), ("random", "#1f6fb2"))):
        heights = [max(difference[name, cotangent], 1e-12) for name in layers]
        axes.bar(np.arange(4) + 0.36 * i - 0.18, heights, 0.34, bottom=1e-13, color=colour, label=f"dy: {cotangent}")
    axes.axhline(1e-6, color="black", linestyle=":")
    axes.text(-0.4, 2e-6, "above: caught")
    axes.set_yscale("log")
    axes.set_xticks(range(4), [name.replace(" mean", "\nmean") for name in layers])
    axes.set_ylabel("measured slope - backward's")
    axes.legend(loc="upper left")
    figure.savefig(sys.argv[1], dpi=100)
    print("drawn in", sys.argv[1])
