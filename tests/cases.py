"""A small case of every layer, for the tests that hold all of them to the same rule."""

from collections.abc import Callable

import numpy as np

from tinysrgan import layers
from tinysrgan.layers import Layer

rng = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return rng.uniform(-1, 1, shape)


# name: (a function that makes the layer, its input in float64)
CASES: dict[str, tuple[Callable[[], Layer], np.ndarray]] = {
    "Conv2D": (lambda: layers.Conv2D(3, 4, 3), numbers(2, 5, 6, 3)),
    "Conv2D 1x1": (lambda: layers.Conv2D(3, 4, 1), numbers(2, 4, 4, 3)),
    "Conv2D 5x5": (lambda: layers.Conv2D(2, 3, 5), numbers(2, 7, 6, 2)),
    "Conv2D stride 2, even": (lambda: layers.Conv2D(3, 4, 3, stride=2), numbers(2, 6, 8, 3)),
    "Conv2D stride 2, odd": (lambda: layers.Conv2D(3, 4, 3, stride=2), numbers(2, 7, 5, 3)),
    "Conv2D 9x9, larger than the image": (lambda: layers.Conv2D(3, 8, 9), numbers(1, 6, 5, 3)),
    "Conv2D 9x9, few outputs": (lambda: layers.Conv2D(16, 3, 9), numbers(2, 12, 11, 16)),
    "Conv2D 3x3, many channels": (lambda: layers.Conv2D(64, 64, 3), numbers(1, 34, 33, 64)),
    "Conv2D before a shuffle": (lambda: layers.Conv2D(3, 8, 3, icnr_factor=2), numbers(2, 4, 4, 3)),
    "Dense": (lambda: layers.Dense(6, 4), numbers(3, 6)),
    "BatchNorm": (lambda: layers.BatchNorm(3), numbers(2, 4, 5, 3) * 3 + 1),
    "PReLU": (lambda: layers.PReLU(3), numbers(2, 4, 5, 3)),
    "LeakyReLU": (lambda: layers.LeakyReLU(), numbers(2, 4, 5, 3)),
    "ReLU": (lambda: layers.ReLU(), numbers(2, 4, 5, 3)),
    "Rescale": (lambda: layers.Rescale(127.5, -3), numbers(2, 4, 5, 3)),
    "Sigmoid": (lambda: layers.Sigmoid(), numbers(2, 4, 5, 3) * 3),
    "Tanh": (lambda: layers.Tanh(), numbers(2, 4, 5, 3) * 3),
    "PixelShuffle": (lambda: layers.PixelShuffle(2), numbers(2, 3, 4, 8)),
    "Upsample": (lambda: layers.Upsample(2), numbers(2, 3, 4, 2)),
    "MaxPool": (lambda: layers.MaxPool(), numbers(2, 6, 4, 3)),
    "MaxPool, odd": (lambda: layers.MaxPool(), numbers(2, 5, 7, 3)),
    "Flatten": (lambda: layers.Flatten(), numbers(2, 3, 4, 2)),
    "Sequential": (lambda: layers.Sequential(layers.Dense(4, 5), layers.Tanh(), layers.Dense(5, 2)), numbers(3, 4)),
    "Residual": (lambda: layers.Residual(conv=layers.Conv2D(3, 3, 3), norm=layers.BatchNorm(3)), numbers(2, 5, 4, 3)),
}


def covered() -> set[str]:
    """The classes that the cases are of."""
    return {type(make()).__name__ for make, _ in CASES.values()}
