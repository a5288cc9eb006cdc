"""Lesson 3: batch-norm, forward and backward, in train and in eval mode.

    python examples/03_batch_norm.py [picture.png]

Batch-norm gives every channel mean 0 and standard deviation 1, then a scale gamma and a shift beta of its own. While
training it takes mean and variance from the batch, and notes running averages of both. Afterwards it uses those. Read
next: tinysrgan/layers/norm.py.
"""

import sys

import numpy as np

from tinysrgan.layers import BatchNorm

rng = np.random.default_rng(0)
MEAN, STD = 5.0, 2.0


def batch(n: int = 32) -> np.ndarray:
    """(n, 8, 8, 1), normally distributed around MEAN."""
    return rng.normal(MEAN, STD, (n, 8, 8, 1))


# ---------------------------------------------------------------- forward, in train mode

norm = BatchNorm(1).astype(np.float64)
x = batch()
y = norm.forward(x)
std = np.sqrt(x.var() + norm.epsilon)
normal = (x - x.mean()) / std
forward_error = np.abs(y - normal).max()
print(f"x: mean {x.mean():.3f}, std {x.std():.3f}   y: mean {y.mean():.3f}, std {y.std():.3f}")
print(f"by hand, (x - mean) / sqrt(variance + epsilon): largest difference {forward_error:.0e}\n")

# ---------------------------------------------------------------- backward

# Every x moves y three times: directly, through the mean and through the variance. The last two are what is subtracted:
dy = rng.standard_normal(y.shape)
dx = norm.backward(dy)
by_hand = (dy - dy.mean() - normal * (dy * normal).mean()) / std
backward_error = np.abs(dx - by_hand).max()
print(f"dx = (dy - mean(dy) - normal mean(dy normal)) / std: largest difference {backward_error:.0e}")
# To shift all x, or to scale them, does not change y, so the gradient has no part in these directions (not exactly
# zero along a scaling, because of epsilon):
shift, scale = dx.sum(), (dx * normal).sum()
print(f"dx along a shift of all x: {shift:.1e}, along a scaling: {scale:.1e} (dy itself: {dy.sum():.1f}, "
      f"{(dy * normal).sum():.1f})")  # fmt: skip
print(f"dgamma = sum(dy normal) = {norm.gamma.grad[0]:.3f}, dbeta = sum(dy) = {norm.beta.grad[0]:.3f}\n")

# ---------------------------------------------------------------- the running averages

norm = BatchNorm(1).astype(np.float64)
running = [(0.0, 1.0)]  # mean 0 and variance 1 to begin with
for _ in range(30):
    norm.forward(batch())
    running.append((norm.running_mean.value[0], norm.running_variance.value[0]))
print(f"running mean and variance move a fifth of the way with every batch (momentum {norm.momentum}):")
for i in (0, 1, 2, 5, 10, 30):
    print(f"  after {i:2d} batches: {running[i][0]:6.3f} {running[i][1]:6.3f}   (truth: {MEAN:.3f} {STD**2:.3f})")

# ---------------------------------------------------------------- train and eval mode

image = batch(1)
ordinary, bright = batch(7), batch(7) + 10
together = {
    mode: [net.forward(np.concatenate([image, others]))[0] for others in (ordinary, bright)]
    for mode, net in (("train", BatchNorm(1).astype(np.float64)), ("eval", norm.eval()))
}
change = {mode: float(np.abs(a - b).mean()) for mode, (a, b) in together.items()}
print("\none image, in a batch with ordinary and with bright ones; its output changes by")
print(f"  train mode: {change['train']:.3f}   eval mode: {change['eval']:.3f}")

# A batch of one vector has no variance: in train mode nothing of x is left.
one = np.array([[7.0, 3.0, -4.0]])
vectors = BatchNorm(3).astype(np.float64)
print(f"one vector {one[0]} in train mode: {vectors.forward(one)[0]}, in eval mode: "
      f"{vectors.eval().forward(one)[0].round(3)}")  # fmt: skip

# A net that is used in train mode, or whose running averages have not arrived yet, gives wrong pictures:
fresh = BatchNorm(1).astype(np.float64)
fresh.forward(x)
early = fresh.eval().forward(x)
print(f"eval mode after a single batch: mean {early.mean():.2f}, std {early.std():.2f} instead of 0 and 1")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(x.ravel(), 40, alpha=0.7, label="x", color="#9a9a9a")
    left.hist(y.ravel(), 40, alpha=0.7, label="y, train mode", color="#1f6fb2")
    left.hist(early.ravel(), 40, alpha=0.5, label="eval mode after 1 batch", color="#c8501e")
    left.set_xlabel("value")
    for values, truth, name in zip(zip(*running, strict=True), (MEAN, STD**2), ("mean", "variance"), strict=True):
        line = right.plot(values, label=f"running {name}")[0]
        right.axhline(truth, linestyle=":", color=line.get_color())
    right.set_xlabel("batches")
    for axes in (left, right):
        axes.legend(fontsize=8)
    figure.savefig(sys.argv[1], dpi=100)
    print("drawn in", sys.argv[1])
