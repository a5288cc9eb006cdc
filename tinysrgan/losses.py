"""Loss functions. Each returns the loss, a scalar, and its gradient with respect to the first argument.

The generator minimizes a weighted sum of them, ``perceptual_loss``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers import Layer, frozen
from tinysrgan.layers.activation import sigmoid

# How good a generated image is: (fake, real) -> (loss, gradient with respect to fake), with images (N, H, W, 3) in
# [-1, 1].
ImageLoss = Callable[[Array, Array], tuple[Array, Array]]


@ops.on_gpu(ops.squared_error_kernel)
def mean_squared_error(y: Array, target: Array) -> tuple[Array, Array]:
    """mean((y - target)^2) over all elements; the gradient is 2 (y - target) / size. Any shape, both alike."""
    difference = y - target
    return (difference * difference).mean(), difference * (2 / difference.size)


def pixel_cross_entropy(y: Array, target: Array) -> tuple[Array, Array]:
    """-mean(t log p + (1 - t) log(1 - p)) with p = (1 + y) / 2, t = (1 + target) / 2: the probabilities of white.

    For black-and-white images, such as QR codes, and a net that ends in tanh. The gradient,
    (y - target) / (1 - y^2) / size, is large where y is confident and wrong; it compensates for tanh's gradient, which
    vanishes there. Both in [-1, 1], any shape. p is clipped to [1e-7, 1 - 1e-7].
    """
    p, t = (1 + y) / 2, (1 + target) / 2
    near = 1e-7
    loss = -(t * np.log(np.maximum(p, near)) + (1 - t) * np.log(np.maximum(1 - p, near)))
    return loss.mean(), (y - target) / np.maximum(1 - y * y, 4 * near) / y.size


PIXEL_LOSSES: dict[str, ImageLoss] = {"mse": mean_squared_error, "bce": pixel_cross_entropy}


@ops.on_gpu(ops.cross_entropy_kernel)
def binary_cross_entropy(logits: Array, label: float) -> tuple[Array, Array]:
    """-mean(label log p + (1 - label) log(1 - p)) with p = sigmoid(logits); the gradient is (p - label) / size.

    Computed from the logits as max(l, 0) - l label + log(1 + exp(-|l|)), which never overflows.
    """
    loss = np.maximum(logits, 0) - logits * label + np.log1p(np.exp(-abs(logits)))
    return loss.mean(), (sigmoid(logits) - label) / logits.size


@ops.on_gpu(ops.mean_sigmoid_kernel)
def mean_sigmoid(logits: Array) -> Array:
    """The mean of sigmoid(logits), a scalar: a discriminator's mean probability, over a batch, that images are real."""
    return sigmoid(logits).mean()


class FeatureLoss:
    """Mean squared error between VGG19's features of two images (Ledig et al. 2017, eq. 5): an ``ImageLoss``.

    ``scale`` multiplies the features first: 1 in the article, 1 / 12.75 in the paper. The real image needs no gradient,
    so its pass is in eval mode, which saves nothing for ``backward``.
    """

    def __init__(self, vgg: Layer, scale: float = 1.0):
        self.vgg = vgg
        self.scale = scale

    def __call__(self, fake: Array, real: Array) -> tuple[Array, Array]:
        target = self.vgg.eval().forward(real)
        features = self.vgg.train().forward(fake)
        loss, d_features = mean_squared_error(features, target)
        return loss * self.scale**2, self.vgg.backward(d_features * self.scale**2)


class AdversarialLoss:
    """-log D(fake): small when the discriminator takes the fake for real (Ledig et al. 2017, eq. 6): an ``ImageLoss``.

    The gradient passes through the discriminator, which is frozen meanwhile. The real image is not used.
    """

    def __init__(self, discriminator: Layer):
        self.discriminator = discriminator

    def __call__(self, fake: Array, real: Array) -> tuple[Array, Array]:
        with frozen(self.discriminator):
            loss, d_logits = binary_cross_entropy(self.discriminator.forward(fake), label=1)
            return loss, self.discriminator.backward(d_logits)


def perceptual_loss(
    fake: Array, real: Array, terms: Mapping[str, tuple[float, ImageLoss]]
) -> tuple[dict[str, Array], Array]:
    """The generator's loss, sum of weight * loss over all ``terms`` (Ledig et al. 2017, eq. 3).

    fake, real: (N, H, W, 3) in [-1, 1]. ``terms`` holds (weight, loss) by name: in the paper (1, content) and (1e-3,
    adversarial). Returns every loss by its name, unweighted, and the gradient of the weighted sum with respect to
    ``fake``.
    """
    losses, gradient = {}, np.zeros_like(fake)
    for name, (weight, loss) in terms.items():
        losses[name], d_fake = loss(fake, real)
        gradient += weight * d_fake
    return losses, gradient
