"""One layer checked by hand: a 3x3 convolution on a 4x4 image.

    python examples/layer_by_hand.py

Three questions, each answered twice: once by the layer, once with a pencil's arithmetic.
What is y? What does the loss do when one weight is nudged? And when one pixel is nudged?
"""

import numpy as np

from tinysrgan.layers import Conv2D

rng = np.random.default_rng(0)
layer = Conv2D(1, 1, 3).astype(np.float64)
x = rng.integers(0, 10, (1, 4, 4, 1)).astype(np.float64)
w = layer.w.value

print("image\n", x[0, :, :, 0])
print("weights\n", w[:, :, 0, 0].round(3))

# 1. Forward: output (1, 2) is the window around pixel (1, 2), times the weights, summed.
y = layer.forward(x)
window = x[0, 0:3, 1:4, 0]
print("\n1. y at row 1, column 2")
print("   by the layer:", y[0, 1, 2, 0])
print("   by hand:     ", sum(window[i, j] * w[i, j, 0, 0] for i in range(3) for j in range(3)))

# Any loss will do. This one is a random weighted sum of y, so its gradient dL/dy is those random weights.
# (Weights of one would be a poor test: they don't notice when backward mixes up its outputs.)
dy = rng.standard_normal(y.shape)


def loss() -> float:
    return float((layer.forward(x) * dy).sum())


dx = layer.backward(dy)


def slope_by_nudging(tensor: np.ndarray, place: tuple[int, ...], nudge: float = 1e-6) -> float:
    """How fast the loss changes when one number of ``tensor`` changes: up a bit, down a bit, difference over both."""
    old = tensor[place]
    tensor[place] = old + nudge
    up = loss()
    tensor[place] = old - nudge
    down = loss()
    tensor[place] = old
    return (up - down) / (2 * nudge)


print("\n2. dL/dw of the weight in row 0, column 1")
print("   by the layer:", layer.w.grad[0, 1, 0, 0])
print("   by nudging:  ", slope_by_nudging(w, (0, 1, 0, 0)))

print("\n3. dL/dx of the pixel in row 3, column 0")
print("   by the layer:", dx[0, 3, 0, 0])
print("   by nudging:  ", slope_by_nudging(x, (0, 3, 0, 0)))

error = max(
    abs(layer.w.grad[0, 1, 0, 0] - slope_by_nudging(w, (0, 1, 0, 0))),
    abs(dx[0, 3, 0, 0] - slope_by_nudging(x, (0, 3, 0, 0))),
)
print(f"\nLargest difference: {error:.1e}. `python -m tinysrgan.gradcheck` does this for every layer.")
