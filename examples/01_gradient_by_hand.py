"""Lesson 1: a gradient by hand, of one activation and of one convolution.

    python examples/01_gradient_by_hand.py [picture.png]

A gradient is a slope: how fast the loss changes when one number changes. ``backward`` computes it from a formula. A
central difference measures it: move the number a little up and a little down, and divide the change of the loss by the
distance. Where the two agree, the formula is right. Read next: tinysrgan/layers/activation.py and layers/conv.py.
"""

import sys

import numpy as np

from tinysrgan.layers import Conv2D, PReLU, Tanh

rng = np.random.default_rng(0)

# ---------------------------------------------------------------- one activation: y = x if x > 0, else 0.25 x

act = PReLU(1, initial=0.25).astype(np.float64)
x = np.array([[-2.0], [-0.5], [1.5]])
y = act.forward(x)
dx = act.backward(np.ones_like(y))  # dL/dx for the loss L = sum of y
print("PReLU         x     y  dy/dx by the layer, by hand")
for i in range(3):
    print(f"          {x[i, 0]:5.1f} {y[i, 0]:5.2f}  {dx[i, 0]:5.2f}  {1.0 if x[i, 0] > 0 else 0.25:5.2f}")
by_hand = np.minimum(x, 0).sum()  # each negative x adds itself: y = slope x there
print(f"dL/dslope, the sum of the negative x: {act.slope.grad[0]:.2f} by the layer, {by_hand:.2f} by hand\n")

# ---------------------------------------------------------------- one convolution: a 3x3 filter on a 4x4 image

layer = Conv2D(1, 1, 3, rng=rng).astype(np.float64)
image = rng.integers(0, 10, (1, 4, 4, 1)).astype(np.float64)
w = layer.w.value
print("image\n", image[0, :, :, 0])
print("weights\n", w[:, :, 0, 0].round(3))

# Output (1, 2) is the window around pixel (1, 2), times the weights, summed.
y = layer.forward(image)
window = image[0, 0:3, 1:4, 0]
output_by_hand = sum(window[i, j] * w[i, j, 0, 0] for i in range(3) for j in range(3))
print(f"y at row 1, column 2: {y[0, 1, 2, 0]:.6f} by the layer, {output_by_hand:.6f} by hand")

# The loss is a random weighted sum of y, so that dL/dy is those random weights. Lesson 2 shows why not ones.
dy = rng.standard_normal(y.shape)
dx = layer.backward(dy)


def central_difference(tensor: np.ndarray, place: tuple[int, ...], step: float = 1e-4) -> float:
    """The slope of the loss with respect to one element of ``tensor``: (L(a + step) - L(a - step)) / (2 step)."""
    old = tensor[place]
    losses = []
    for moved in (old + step, old - step):
        tensor[place] = moved
        losses.append((layer.forward(image) * dy).sum())
    tensor[place] = old
    return (losses[0] - losses[1]) / (2 * step)


print("                          by the layer   by differences")
errors = []
for name, gradient, tensor, place in (
    ("dL/dw, row 0, column 1", layer.w.grad, w, (0, 1, 0, 0)),
    ("dL/dx, row 3, column 0", dx, image, (0, 3, 0, 0)),
):
    measured = central_difference(tensor, place)
    errors.append(abs(gradient[place] - measured))
    print(f"{name}    {gradient[place]:12.9f}     {measured:12.9f}")
print(f"Largest difference: {max(errors):.1e}. `python -m tinysrgan.gradcheck` does this for every layer.\n")

# ---------------------------------------------------------------- how small a step?

# The loss of the convolution is linear, so that any step measures it well. Tanh is curved: a long step measures the
# curve as well as the slope (an error of step^2); a short one divides rounding errors by a tiny step (1 / step).
steps = 10.0 ** -np.arange(0, 12.5, 0.5)
step_errors = {}
for dtype in (np.float32, np.float64):
    tanh, here = Tanh(), np.array([0.5], dtype)
    tanh.forward(here)
    slope = tanh.backward(np.ones(1, dtype))[0]
    tanh.eval()
    ahead_behind = [(tanh.forward(here + dtype(step)), tanh.forward(here - dtype(step))) for step in steps]
    slopes = [
        (ahead[0] - behind[0]) / dtype(2 * step) for (ahead, behind), step in zip(ahead_behind, steps, strict=True)
    ]
    step_errors[dtype.__name__] = np.abs(slopes - slope)
    best = int(np.argmin(step_errors[dtype.__name__]))
    print(f"tanh at 0.5, {dtype.__name__}: best step {steps[best]:.0e}, error {step_errors[dtype.__name__][best]:.0e}")
print("Float64 leaves six more digits to find a mistake in, so gradients are checked in float64.")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, error in step_errors.items():
        axes.loglog(steps, np.maximum(error, 1e-13), marker=".", label=name)
    axes.set(xlabel="step of the central difference", ylabel="error of the slope of tanh")
    axes.legend()
    figure.savefig(sys.argv[1], dpi=100)
    print("drawn in", sys.argv[1])
