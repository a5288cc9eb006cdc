"""Lesson 5: gradient descent, Adam and Muon in one valley.

    python examples/05_adam_and_muon.py [picture.png]

A valley is steep in some directions and nearly flat in others. A step that is short enough for the steep ones hardly
moves along the flat ones. Adam divides each element of the gradient by its usual size, which helps if the valley runs
along the axes. Muon gives all directions of a weight matrix about the same size, wherever they point, except those
below about 1e-3 of the largest. Read next: tinysrgan/optimizers/adam.py and muon.py.
"""

import sys
from functools import partial

import numpy as np

from tinysrgan.layers import Parameter
from tinysrgan.optimizers.adam import Adam
from tinysrgan.optimizers.muon import Muon, orthogonal

rng = np.random.default_rng(0)
SIZE, STEPS = 8, 300


class GradientDescent:
    """value -= rate gradient."""

    def __init__(self, parameters: dict[str, Parameter], learning_rate: float):
        self.parameters, self.learning_rate = parameters, learning_rate

    def step(self) -> None:
        for p in self.parameters.values():
            p.value -= self.learning_rate * p.grad
            p.grad[...] = 0


def rotation() -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]


# The matrix W should become TARGET. Seen in the directions U and V, element (i, j) has the curvature a_i a_j: from 1 to
# 1/10,000. With U = V = 1 the valley runs along the axes, with rotations it runs obliquely.
curvature = np.outer(a := np.logspace(0, -2, SIZE), a)
target = rng.standard_normal((SIZE, SIZE))


def loss(w: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray]:
    """L = 1/2 sum of curvature (U^T (W - TARGET) V)^2, and its gradient; W: (8, 8)."""
    distance = u.T @ (w - target) @ v
    return 0.5 * float((curvature * distance**2).sum()), u @ (curvature * distance) @ v.T


def descend(make, rate: float, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss before each step, and the path of W along a steep direction (0, 0) and a flat one (4, 4): (STEPS, 2).

    The rate falls to zero along a cosine, as in training.
    """
    w = Parameter(np.zeros((1, 1, SIZE, SIZE)))  # a 1x1 convolution's weights
    optimizer, losses, path = make({"w": w}, learning_rate=rate), [], []
    for step in range(STEPS):
        value, gradient = loss(w.value[0, 0], u, v)
        losses.append(value)
        path.append(np.diag(u.T @ (w.value[0, 0] - target) @ v)[[0, 4]])
        w.grad[0, 0] += gradient
        optimizer.learning_rate = rate * (1 + np.cos(np.pi * step / STEPS)) / 2
        optimizer.step()
    return np.array(losses), np.array(path)


u, v = rotation(), rotation()
optimizers = {
    "gradient descent": (GradientDescent, (0.5, 1.0, 1.9)),
    "Adam": (Adam, (0.01, 0.03, 0.1, 0.3)),
    "Muon": (partial(Muon, momentum=0.9), (0.01, 0.03, 0.1, 0.3)),
}
print(f"the loss after {STEPS} steps, at the best of a few learning rates (in brackets)")
print(f"{'':18s}{'valley along the axes':>24s}{'oblique valley':>24s}")
runs, final = {}, {}
for name, (make, rates) in optimizers.items():
    for valley, axes in {"axes": (np.eye(SIZE), np.eye(SIZE)), "oblique": (u, v)}.items():
        tries = {rate: descend(make, rate, *axes) for rate in rates}
        best = min(rates, key=lambda rate: tries[rate][0][-1])
        runs[name, valley], final[name, valley] = tries[best], (tries[best][0][-1], best)
    cells = [f"{final[name, valley][0]:.1e} ({final[name, valley][1]})" for valley in ("axes", "oblique")]
    print(f"{name:18s}{cells[0]:>24s}{cells[1]:>24s}")

gradient = loss(np.zeros((SIZE, SIZE)), u, v)[1]
before, after = (np.linalg.svd(m, compute_uv=False) for m in (gradient, orthogonal(gradient)))
print("\nthe first gradient's singular values:", " ".join(f"{s:.0e}" for s in before))
print("after Muon's orthogonal():           ", " ".join(f"{s:.2f}" for s in after))
ratio = final["Adam", "oblique"][0] / final["Adam", "axes"][0]
print(f"Adam is best along the axes. After a rotation its loss is {ratio:.0e} times as large, Muon's about the same.")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steep, flat = np.meshgrid(np.linspace(-1.5, 1.5, 100), np.linspace(-1.5, 1.5, 100))
    left.contour(steep, flat, curvature[0, 0] * steep**2 + curvature[4, 4] * flat**2, 12, colors="0.85")
    for name, colour in zip(optimizers, ("#9a9a9a", "#1f6fb2", "#c8501e"), strict=True):
        losses, path = runs[name, "oblique"]
        left.plot(*path.T, color=colour, marker=".", markersize=3, linewidth=0.8, label=name)
        right.semilogy(losses, color=colour, label=name)
    left.set(xlabel="distance along a steep direction", ylabel="along a flat one", title="the oblique valley")
    right.set(xlabel="step", ylabel="loss")
    right.legend()
    figure.savefig(sys.argv[1], dpi=100)
    print("drawn in", sys.argv[1])
