"""Lesson 7: why losses take logits, and which of a generator's two losses.

    python examples/07_logits.py [picture.png]

The discriminator's last number is a logit l; its sigmoid p is the probability of "real". Near 0 and 1 a float32 has too
few digits for p: 1 - p becomes 0, its logarithm infinite, and the sigmoid's slope p (1 - p) zero. From the logit the
same loss and gradient need no p at all. Read next: ``binary_cross_entropy`` in tinysrgan/losses.py.
"""

import sys

import numpy as np

from tinysrgan.layers import Sigmoid
from tinysrgan.losses import binary_cross_entropy

np.seterr(divide="ignore", invalid="ignore")  # the point of the first table


def through_probability(logits: np.ndarray, label: float, near: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of p and its gradient with respect to the logits, each by itself; Keras clips p by 1e-7."""
    layer = Sigmoid()
    p = layer.forward(logits)
    inside = (p >= near) & (p <= 1 - near)  # a clipped p does not move, so its gradient is zero
    p = np.clip(p, np.float32(near), np.float32(1 - near))
    loss = -np.log(p) if label else -np.log(1 - p)
    return loss, layer.backward(inside * (-1 / p if label else 1 / (1 - p)))


def from_logits(logits: np.ndarray, label: float) -> tuple[np.ndarray, np.ndarray]:
    """The package's loss of each logit by itself."""
    pairs = [binary_cross_entropy(logits[i : i + 1], label) for i in range(len(logits))]
    return np.array([loss for loss, _ in pairs]), np.concatenate([gradient for _, gradient in pairs])


# ---------------------------------------------------------------- one fake that the discriminator takes for real

logits = np.array([1, 5, 10, 15, 17, 18, 20, 50, 100], np.float32)
exact = np.log1p(np.exp(logits.astype(np.float64)))
ways = {
    "p": through_probability(logits, 0),
    "p clipped": through_probability(logits, 0, near=1e-7),
    "logit": from_logits(logits, 0),
}
print("-log(1 - p) in float32, for a fake of logit l, and the gradient with respect to l (exact: p, nearly 1)")
print(f"{'l':>5s}{'exact':>9s}" + "".join(f"{'by ' + way:>15s}{'gradient':>10s}" for way in ways))
for i, logit in enumerate(logits):
    row = "".join(f"{loss[i]:15.4f}{gradient[i]:10.4f}" for loss, gradient in ways.values())
    print(f"{logit:5.0f}{exact[i]:9.4f}{row}")
error = {way: np.abs(loss - exact).max() for way, (loss, _) in ways.items()}
print("Largest error of the loss: " + ", ".join(f"by {way} {value:.1e}" for way, value in error.items()))
print("Where p rounds to 1 the discriminator learns nothing from its worst mistakes, or NaN ends the training.\n")

# ---------------------------------------------------------------- what the generator minimizes

# log(1 - p), the game of the GAN paper's theory, saturates: a fake that is surely fake has no gradient. -log p, what
# everybody trains with, has its largest gradient there. Both want p = 1.
scale = np.linspace(-20, 20, 401).astype(np.float32)
saturating = -from_logits(scale, 0)[1]  # d log(1 - p) / dl = -p
usual = from_logits(scale, 1)[1]  # d -log p / dl = p - 1
clipped = through_probability(scale, 1, near=1e-7)[1]
print("the generator's gradient with respect to the logit of its fake")
print(f"{'l':>5s}{'p':>10s}{'log(1 - p)':>13s}{'-log p':>10s}{'-log p, clipped p':>20s}")
for logit in (-20, -10, -5, 0, 5):
    i = int(np.argmin(np.abs(scale - logit)))
    p = 1 / (1 + np.exp(-logit))
    print(f"{logit:5d}{p:10.6f}{saturating[i]:13.6f}{usual[i]:10.6f}{clipped[i]:20.6f}")
print("So a discriminator that has won (l = -10) stops a generator that minimizes log(1 - p), not one with -log p;")
print("clipping p stops that one too, beyond |l| = 16.")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    wide = np.linspace(0, 30, 301).astype(np.float32)
    for way, colour, style in (("clipped", "#c8501e", "-"), ("logit", "#1f6fb2", "-"), ("p", "black", ":")):
        loss = {
            "p": through_probability(wide, 0)[0],
            "clipped": through_probability(wide, 0, 1e-7)[0],
            "logit": from_logits(wide, 0)[0],
        }[way]
        left.plot(wide, loss, style, color=colour, label=f"by {way}".replace("clipped", "p, clipped"))
    left.set(xlabel="logit of a fake", ylabel="discriminator's loss")
    right.plot(scale, -usual, color="#1f6fb2", label="-log p")
    right.plot(scale, -clipped, "--", color="#c8501e", label="-log p, clipped p")
    right.plot(scale, -saturating, color="#9a9a9a", label="log(1 - p)")
    right.set(xlabel="logit of a fake", ylabel="- gradient of the generator's loss")
    for axes in (left, right):
        axes.legend(fontsize=8)
    figure.savefig(sys.argv[1], dpi=100)
    print("drawn in", sys.argv[1])
