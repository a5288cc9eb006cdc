"""Lesson 6: a GAN in one page, and the two ways in which it breaks.

    python examples/06_gan_on_a_ring.py [picture.png]

The data is a toy: points of eight blobs on a ring. The generator turns noise into points, and learns from nothing but
the discriminator's gradient, with the same layers, losses and Adam as tinysrgan/train.py. It breaks twice on
purpose. A discriminator that has won is equally sure of all fakes, so its gradient is nearly zero. A
generator that is too quick moves all points to where the discriminator is weakest now (mode collapse). Read next:
tinysrgan/train.py.
"""

import sys

import numpy as np

from tinysrgan.layers import Dense, LeakyReLU, Sequential, frozen
from tinysrgan.losses import binary_cross_entropy, sigmoid
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.optimizers.adam import Adam

BLOBS, BATCH, WIDTH = 8, 64, 64


def train(
    steps: int = 1500, generator_rate: float = 1e-3, head_start: int = 0, far_away: float = 0.0, original: bool = False
) -> tuple[dict[str, float], np.ndarray]:
    """Train both nets. Returns figures of the last step and 2000 generated points: (2000, 2).

    The discriminator is trained alone for ``head_start`` steps, at 3e-2, while the generator's points lie ``far_away``
    from the ring. The generator minimizes -log D(fake) by Adam; if ``original``, log(1 - D(fake)) by gradient descent,
    as the game was first written down. Lesson 7 compares the two.
    """
    rng = np.random.default_rng(0)

    def real_points(n: int) -> np.ndarray:
        angle = rng.integers(0, BLOBS, n) * 2 * np.pi / BLOBS
        return (np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.standard_normal((n, 2))).astype(np.float32)

    def noise(n: int) -> np.ndarray:
        return rng.standard_normal((n, 8)).astype(np.float32)

    def net(features: int, outputs: int) -> Sequential:
        layers = Dense(features, WIDTH, rng), LeakyReLU(), Dense(WIDTH, WIDTH, rng), LeakyReLU()
        return Sequential(*layers, last=Dense(WIDTH, outputs, rng))

    generator, discriminator = net(8, 2), net(2, 1)
    generator["last"].b.value += far_away
    generator_optimizer = Adam(generator.parameters(), generator_rate, beta1=0.5)
    discriminator_optimizer = Adam(discriminator.parameters(), 3e-2, beta1=0.5)
    probability = {}

    for step in range(-head_start, steps):
        # Train the discriminator: fakes are 0, real points are 1. Its gradients add up over both.
        fake = generator.forward(noise(BATCH))
        for name, points, label in (("D(fake)", fake, 0.0), ("D(real)", real_points(BATCH), 1.0)):
            logits = discriminator.forward(points)
            discriminator.backward(binary_cross_entropy(logits, label)[1])
            probability[name] = float(sigmoid(logits).mean())
        discriminator_optimizer.learning_rate = 3e-2 if step < 0 else 1e-3
        discriminator_optimizer.step()
        if step < 0:
            continue

        # Train the generator through the frozen discriminator: which way must each fake move to be taken for real?
        with frozen(discriminator):
            logits = discriminator.forward(fake)
            d_logits = -binary_cross_entropy(logits, 0.0)[1] if original else binary_cross_entropy(logits, 1.0)[1]
            d_fake = discriminator.backward(d_logits)
        generator.backward(d_fake)
        if not original:
            generator_optimizer.step()
            continue
        for parameter in generator.parameters().values():
            parameter.value -= 0.05 * parameter.grad
            parameter.grad[...] = 0

    points = generator.eval().forward(noise(2000))
    near = np.abs(np.hypot(*points.T) - 1) < 0.2
    blob = np.round(np.arctan2(points[near, 1], points[near, 0]) / (2 * np.pi / BLOBS)).astype(int) % BLOBS
    shares = np.bincount(blob, minlength=BLOBS) / len(points)
    gradient_norm = float(np.linalg.norm(d_fake))  # of the generator's loss with respect to a batch of fakes
    blobs = int((shares > 0.02).sum())  # those with more than 2 % of the points
    return probability | {"gradient norm": gradient_norm, "on the ring": float(near.mean()), "blobs": blobs}, points


far = dict(head_start=300, far_away=3.0)  # as without pre-training: fakes that nobody takes for real
runs = {
    "healthy": dict(),
    "the discriminator wins": dict(original=True, steps=400, **far),
    "mended: -log D, and Adam": dict(steps=2000, **far),
    "the generator 10 times as fast": dict(generator_rate=1e-2),
}
print(f"{'':32s}{'D(real)':>8s}{'D(fake)':>10s}{'gradient norm':>15s}{'on the ring':>13s}{'blobs':>7s}")
found, clouds = {}, {}
with single_threaded_blas():  # the matrices are small
    for name, options in runs.items():
        found[name], clouds[name] = train(**options)
        f = found[name]
        print(f"{name:32s}{f['D(real)']:8.2f}{f['D(fake)']:10.1e}{f['gradient norm']:15.1e}"
              f"{100 * f['on the ring']:11.0f} %{f['blobs']:7d}", flush=True)  # fmt: skip
print("Where D(fake) is nearly 0, log(1 - D) has hardly any gradient, -log D has. Adam ignores a gradient's norm.")
print("Mode collapse does not show in D: both its figures stay near 0.5. Equal rates, the first row, mend it.")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8), layout="constrained")
    angle = np.arange(BLOBS) * 2 * np.pi / BLOBS
    for axes, (title, cloud) in zip(figure.subplots(1, len(runs)), clouds.items(), strict=True):
        axes.plot(np.cos(angle), np.sin(angle), "o", color="0.8")  # the real blobs
        axes.scatter(*cloud.T, s=2, color="#1f6fb2")
        axes.set_title(title, fontsize=9)
        axes.set(xlim=(-1.6, 4.2), ylim=(-1.6, 4.2), aspect="equal")
    figure.savefig(sys.argv[1], dpi=80)
    print("drawn in", sys.argv[1])
