"""A small example of every layer, net and loss, by name.

``python -m tinysrgan.gradcheck`` and the tests take their examples from here: the gradients, the protocol of
``layers/base.py``, the comparison of GPU and CPU, saving and loading. A new layer or loss needs one line here to be
checked by all of them; a test fails while it is missing. Names begin with the name of the class or function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinysrgan import layers, losses
from tinysrgan.core.device import Array
from tinysrgan.models import VGG19, Discriminator, Generator
from tinysrgan.models.vgg19 import Preprocess

# (how to make the layer, the shape of its input)
LAYERS: dict[str, tuple[Callable[[], layers.Layer], tuple[int, ...]]] = {
    "Conv2D": (lambda: layers.Conv2D(3, 4, 3), (2, 5, 6, 3)),
    "Conv2D 1x1": (lambda: layers.Conv2D(3, 4, 1), (2, 4, 4, 3)),
    "Conv2D 5x5": (lambda: layers.Conv2D(2, 3, 5), (2, 7, 6, 2)),
    "Conv2D, stride 2, even size": (lambda: layers.Conv2D(3, 4, 3, stride=2), (2, 6, 8, 3)),
    "Conv2D, stride 2, odd size": (lambda: layers.Conv2D(3, 4, 3, stride=2), (2, 7, 5, 3)),
    "Conv2D 9x9, larger than x": (lambda: layers.Conv2D(3, 8, 9), (1, 6, 5, 3)),
    "Conv2D 9x9, few outputs": (lambda: layers.Conv2D(16, 3, 9), (2, 12, 11, 16)),
    "Conv2D, many channels": (lambda: layers.Conv2D(24, 24, 3), (1, 24, 23, 24)),
    "Conv2D, ICNR": (lambda: layers.Conv2D(3, 8, 3, icnr_factor=2), (2, 4, 4, 3)),
    "Dense": (lambda: layers.Dense(6, 4), (3, 6)),
    "BatchNorm": (lambda: layers.BatchNorm(3), (2, 4, 5, 3)),
    "BatchNorm of vectors": (lambda: layers.BatchNorm(4), (5, 4)),
    "PReLU": (lambda: layers.PReLU(3), (2, 4, 5, 3)),
    "PReLU of vectors": (lambda: layers.PReLU(4), (5, 4)),
    "LeakyReLU": (layers.LeakyReLU, (2, 4, 5, 3)),
    "ReLU": (layers.ReLU, (2, 4, 5, 3)),
    "Rescale": (lambda: layers.Rescale(127.5, -3), (2, 4, 5, 3)),
    "Sigmoid": (layers.Sigmoid, (2, 4, 5, 3)),
    "Tanh": (layers.Tanh, (2, 4, 5, 3)),
    "PixelShuffle": (layers.PixelShuffle, (2, 3, 4, 8)),
    "Upsample": (layers.Upsample, (2, 3, 4, 2)),
    "MaxPool": (layers.MaxPool, (2, 6, 4, 3)),
    "MaxPool, odd size": (layers.MaxPool, (2, 5, 7, 3)),
    "Flatten": (layers.Flatten, (2, 3, 4, 2)),
    "Sequential": (lambda: layers.Sequential(layers.Dense(4, 5), layers.Tanh(), layers.Dense(5, 2)), (3, 4)),
    "Residual": (lambda: layers.Residual(conv=layers.Conv2D(3, 3, 3), norm=layers.BatchNorm(3)), (2, 5, 4, 3)),
    "Preprocess": (Preprocess, (2, 4, 5, 3)),
}

NETS: dict[str, tuple[Callable[[], layers.Layer], tuple[int, ...]]] = {
    "Generator": (lambda: Generator(1, 4, 2), (2, 5, 7, 3)),
    "Generator, nearest, tanh": (lambda: Generator(1, 4, 4, "nearest", "tanh"), (2, 5, 3, 3)),
    "Generator, bytes": (lambda: Generator(1, 4, 2, value_range="bytes:bytes"), (1, 5, 4, 3)),
    "Generator, unit, sigmoid": (lambda: Generator(1, 4, 2, output="sigmoid", value_range="unit:unit"), (1, 4, 5, 3)),
    "Discriminator": (lambda: Discriminator(19, 4, 6), (2, 19, 19, 3)),
    "VGG19 to block2_conv1": (lambda: VGG19("block2_conv1").freeze(False), (2, 9, 7, 3)),
}

# How to make the loss; its images have LOSS_SHAPE.
LOSSES: dict[str, Callable[[], losses.ImageLoss]] = {
    "mean_squared_error": lambda: losses.mean_squared_error,
    "pixel_cross_entropy": lambda: losses.pixel_cross_entropy,
    "binary_cross_entropy": lambda: lambda logits, _: losses.binary_cross_entropy(logits, 0.9),
    "FeatureLoss": lambda: losses.FeatureLoss(VGG19("block1_conv1").astype(np.float64), 1 / 12.75),
    "AdversarialLoss": lambda: losses.AdversarialLoss(Discriminator(16, 4, 8, seed=1).astype(np.float64)),
    "perceptual_loss": lambda: weighted_sum(
        {
            "content": (1.0, losses.mean_squared_error),
            "adversarial": (0.1, losses.AdversarialLoss(Discriminator(16, 4, 8, seed=1).astype(np.float64))),
        }
    ),
}
LOSS_SHAPE = (2, 16, 16, 3)


def example(name: str) -> tuple[layers.Layer, Array]:
    """The layer or net of this name and an input in [-1, 1], in float64, the same at every call.

    All tensors are random: zeros and ones, such as those of a new batch-norm, hide mistakes.
    """
    make, shape = (LAYERS | NETS)[name]
    layer, rng = make().astype(np.float64), np.random.default_rng(1)
    for tensor in layer.tensors().values():
        *fan_in, channels = tensor.value.shape
        limit = (tensor.value.size / channels) ** -0.5
        tensor.value[...] = (
            rng.uniform(-limit, limit, (*fan_in, channels)) if fan_in else rng.uniform(0.1, 0.5, channels)
        )
    return layer, rng.uniform(-1, 1, shape)


def weighted_sum(terms: dict[str, tuple[float, losses.ImageLoss]]) -> losses.ImageLoss:
    """``perceptual_loss`` with its total in place of its terms."""

    def loss(fake: Array, real: Array) -> tuple[Array, Array]:
        found, gradient = losses.perceptual_loss(fake, real, terms)
        return np.asarray(sum(weight * found[name] for name, (weight, _) in terms.items())), gradient

    return loss
