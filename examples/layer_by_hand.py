"""One layer checked by hand: a 3x3 convolution on a 4x4 image.

    python examples/layer_by_hand.py

Three values are computed twice, by the layer and by hand: an output pixel, the gradient of one weight, and the
gradient of one input pixel.
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
print("   by the layer:   ", y[0, 1, 2, 0])
print("   by hand:        ", sum(window[i, j] * w[i, j, 0, 0] for i in range(3) for j in range(3)))

# The loss is a random weighted sum of y, so that its gradient dL/dy is those random weights. Weights of one would not
# show a backward pass that mixes up its outputs.
dy = rng.standard_normal(y.shape)


def loss() -> float:
    return float((layer.forward(x) * dy).sum())


dx = layer.backward(dy)


def central_difference(tensor: np.ndarray, place: tuple[int, ...], step: float = 1e-6) -> float:
    """The slope of the loss with respect to one element of ``tensor``: (L(a + step) - L(a - step)) / (2 step)."""
    old = tensor[place]
    tensor[place] = old + step
    up = loss()
    tensor[place] = old - step
    down = loss()
    tensor[place] = old
    return (up - down) / (2 * step)


print("\n2. dL/dw of the weight in row 0, column 1")
print("   by the layer:   ", layer.w.grad[0, 1, 0, 0])
print("   by differences: ", central_difference(w, (0, 1, 0, 0)))

print("\n3. dL/dx of the pixel in row 3, column 0")
print("   by the layer:   ", dx[0, 3, 0, 0])
print("   by differences: ", central_difference(x, (0, 3, 0, 0)))

error = max(
    abs(layer.w.grad[0, 1, 0, 0] - central_difference(w, (0, 1, 0, 0))),
    abs(dx[0, 3, 0, 0] - central_difference(x, (0, 3, 0, 0))),
)
print(f"\nLargest difference: {error:.1e}. `python -m tinysrgan.gradcheck` does this for every layer.")
