"""What the nets are told to make small. Each function returns the loss and its gradient, written by hand."""

from __future__ import annotations

from tinysrgan.device import Array, array_module


def mean_squared_error(y: Array, target: Array) -> tuple[Array, Array]:
    """mean((y - target)^2) over all numbers, and its gradient 2 (y - target) / size. Any shape, both alike."""
    difference = y - target
    return (difference * difference).mean(), difference * (2 / difference.size)


def binary_cross_entropy(logits: Array, label: float) -> tuple[Array, Array]:
    """-mean(label log p + (1 - label) log(1 - p)) with p = sigmoid(logits), and its gradient (p - label) / size.

    Computed on logits as max(l, 0) - l label + log(1 + exp(-|l|)): never infinite, however sure the discriminator is.
    """
    xp = array_module(logits)
    loss = xp.maximum(logits, 0) - logits * label + xp.log1p(xp.exp(-abs(logits)))
    return loss.mean(), (probability(logits) - label) / logits.size


def probability(logits: Array) -> Array:
    """sigmoid(logits), in 0..1, without overflow."""
    xp = array_module(logits)
    return 0.5 * xp.tanh(0.5 * logits) + 0.5
