"""What the nets are told to make small. Each function returns the loss and its gradient, written by hand."""

from __future__ import annotations

from typing import Protocol

from tinysrgan.core.device import Array, array_module
from tinysrgan.layers import Layer, frozen


def mean_squared_error(y: Array, target: Array) -> tuple[Array, Array]:
    """mean((y - target)^2) over all numbers, and its gradient 2 (y - target) / size. Any shape, both alike."""
    difference = y - target
    return (difference * difference).mean(), difference * (2 / difference.size)


def pixel_cross_entropy(y: Array, target: Array) -> tuple[Array, Array]:
    """-mean(t log p + (1 - t) log(1 - p)) with p = (1 + y) / 2, t = (1 + target) / 2: the probabilities of white.

    For images that are black or white, as QR codes are, and a net that ends in tanh. The gradient, (y - target) / (1 -
    y^2) / size, grows where the net is sure and wrong, and so makes up for tanh's, which vanishes there. Both in
    [-1, 1], any shape. Where p comes as near as 1e-7 to 0 or 1, it counts as that.
    """
    xp = array_module(y)
    p, t = (1 + y) / 2, (1 + target) / 2
    near = 1e-7
    loss = -(t * xp.log(xp.maximum(p, near)) + (1 - t) * xp.log(xp.maximum(1 - p, near)))
    return loss.mean(), (y - target) / xp.maximum(1 - y * y, 4 * near) / y.size


PIXEL_LOSSES = {"squares": mean_squared_error, "entropy": pixel_cross_entropy}


def binary_cross_entropy(logits: Array, label: float) -> tuple[Array, Array]:
    """-mean(label log p + (1 - label) log(1 - p)) with p = sigmoid(logits), and its gradient (p - label) / size.

    Computed on logits as max(l, 0) - l label + log(1 + exp(-|l|)): never infinite, however sure the discriminator is.
    """
    xp = array_module(logits)
    loss = xp.maximum(logits, 0) - logits * label + xp.log1p(xp.exp(-abs(logits)))
    return loss.mean(), (sigmoid(logits) - label) / logits.size


def sigmoid(logits: Array) -> Array:
    """sigmoid(logits), in 0..1, without overflow."""
    xp = array_module(logits)
    return 0.5 * xp.tanh(0.5 * logits) + 0.5


class ContentLoss(Protocol):
    """How far a generated image is from the real one: (fake, real) -> (loss, gradient with respect to fake)."""

    def __call__(self, fake: Array, real: Array, /) -> tuple[Array, Array]: ...


class FeatureLoss:
    """Mean squared error between VGG19's features of two images (Ledig et al. 2017, eq. 5).

    ``scale`` multiplies the features first: 1 in the article, 1 / 12.75 in the paper.
    """

    def __init__(self, vgg: Layer, scale: float = 1.0):
        self.vgg = vgg
        self.scale = scale

    def __call__(self, fake: Array, real: Array, /) -> tuple[Array, Array]:
        target = self.vgg.eval().forward(real)
        features = self.vgg.train().forward(fake)
        loss, d_features = mean_squared_error(features, target)
        return loss * self.scale**2, self.vgg.backward(d_features * self.scale**2)


def perceptual_loss(
    fake: Array, real: Array, content: ContentLoss, discriminator: Layer, adversarial_weight: float = 1e-3
) -> tuple[dict[str, Array], Array]:
    """SRGAN's loss for the generator: content + adversarial_weight * adversarial (Ledig et al. 2017, eq. 3).

    The adversarial part is -log D(fake): small when the discriminator takes the fake for real. Its gradient comes
    through the discriminator, which is frozen meanwhile. Returns both parts by name, unweighted, and the gradient
    of their weighted sum with respect to ``fake``.
    """
    content_loss, d_content = content(fake, real)
    with frozen(discriminator):
        adversarial_loss, d_logits = binary_cross_entropy(discriminator.forward(fake), label=1)
        d_adversarial = discriminator.backward(d_logits)
    return (
        {"content": content_loss, "adversarial": adversarial_loss},
        d_content + adversarial_weight * d_adversarial,
    )
