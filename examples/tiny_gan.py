"""A GAN in one page: learn to draw points on a ring, from a discriminator alone.

    python examples/tiny_gan.py [ring.png]

The same layers, losses, Adam and two steps as in tinysrgan/train.py, with one difference: the discriminator gets one
update on fakes and real points together, the usual way, where train.py follows the article with one on each. Only the
data is a toy. Takes about 20 seconds.
"""

import sys

import numpy as np

from tinysrgan.layers import Dense, LeakyReLU, Sequential, frozen
from tinysrgan.losses import binary_cross_entropy, sigmoid
from tinysrgan.optimizers.adam import Adam

rng = np.random.default_rng(0)


def real_points(n: int) -> np.ndarray:
    """Eight blobs on a circle of radius 1: (n, 2)."""
    angle = rng.integers(0, 8, n) * np.pi / 4
    return (np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.standard_normal((n, 2))).astype(np.float32)


def noise(n: int) -> np.ndarray:
    return rng.standard_normal((n, 8)).astype(np.float32)


def net(in_features: int, out_features: int, width: int = 128) -> Sequential:
    return Sequential(
        Dense(in_features, width, rng),
        LeakyReLU(),
        Dense(width, width, rng),
        LeakyReLU(),
        Dense(width, out_features, rng),
    )


generator, discriminator = net(8, 2), net(2, 1)
generator_optimizer = Adam(generator.parameters(), 1e-3, beta1=0.5)
discriminator_optimizer = Adam(discriminator.parameters(), 1e-3, beta1=0.5)

for step in range(3001):
    # Train the discriminator: fakes are 0, real points are 1. Its gradients add up over both.
    fake, real = generator.forward(noise(128)), real_points(128)
    verdicts = {}
    for points, label in ((fake, 0.0), (real, 1.0)):
        logits = discriminator.forward(points)
        loss, d_logits = binary_cross_entropy(logits, label)
        discriminator.backward(d_logits)
        verdicts[label] = sigmoid(logits).mean()
    discriminator_optimizer.step()

    # Train the generator through the frozen discriminator: which way must each fake move to be taken for real?
    with frozen(discriminator):
        loss, d_logits = binary_cross_entropy(discriminator.forward(fake), 1.0)
        d_fake = discriminator.backward(d_logits)
    generator.backward(d_fake)
    generator_optimizer.step()

    if step % 500 == 0:
        print(f"step {step:4d}   D(real) {verdicts[1.0]:.2f}   D(fake) {verdicts[0.0]:.2f}   (even: 0.50 each)")

points = generator.eval().forward(noise(2000))
near = np.abs(np.hypot(*points.T) - 1) < 0.2
blobs = np.unique(np.round(np.arctan2(points[near, 1], points[near, 0]) / (np.pi / 4)) % 8)
print(f"{100 * near.mean():.0f} % of the generated points lie on the ring, in {len(blobs)} of its 8 blobs")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, title, cloud in zip(
        figure.subplots(1, 2), ("real", "generated"), (real_points(2000), points), strict=True
    ):
        axes.scatter(*cloud.T, s=2)
        axes.set(title=title, xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
    figure.savefig(sys.argv[1])
    print("drawn in", sys.argv[1])
