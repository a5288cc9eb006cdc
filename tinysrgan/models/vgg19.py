"""VGG19's convolutional part (Simonyan & Zisserman 2014, arXiv 1409.1556, column E), cut at any layer.

SRGAN's content loss compares its feature maps of two images: VGG19, trained on ImageNet, sees textures and edges where
a comparison of pixels would ask for the average of all likely images, a blur.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, constant
from tinysrgan.layers import Conv2D, Layer, MaxPool, ReLU, Sequential

# Convolutions in each of the five blocks, and their channels.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
MEAN_BGR = (103.939, 116.779, 123.68)


def layer_names() -> list[str]:
    """Keras' names in order: block1_conv1, block1_conv2, block1_pool, ..., block5_pool."""
    names = []
    for block, (convolutions, _) in enumerate(BLOCKS, start=1):
        names += [f"block{block}_conv{i + 1}" for i in range(convolutions)] + [f"block{block}_pool"]
    return names


class Preprocess(Layer):
    """RGB in [-1, 1] -> BGR in 0..255 minus ImageNet's mean, Keras' ``vgg19.preprocess_input``. (N, H, W, 3)."""

    def forward(self, x: Array) -> Array:
        self.save_for_backward()
        shift = 127.5 - np.asarray(MEAN_BGR, x.dtype)
        return x[..., ::-1] * 127.5 + constant(tuple(shift), x)

    def backward(self, dy: Array) -> Array:
        self.saved()
        return dy[..., ::-1] * 127.5


class VGG19(Sequential):
    """(N, H, W, 3) in [-1, 1] -> the features of layer ``cut`` after its ReLU, for example (N, H/4, W/4, 256).

    ``cut`` is one of Keras' names, ``block3_conv4`` in the article (its "layer 10"). Preprocessing is the first
    layer, so callers must not rescale. Starts with random weights, frozen; ``formats.vgg19_weights`` loads the real
    ones. Raises ValueError for an unknown name.
    """

    def __init__(self, cut: str = "block3_conv4"):
        if cut not in layer_names():
            raise ValueError(f"VGG19 has no layer '{cut}'; it has {', '.join(layer_names())}.")
        rng = np.random.default_rng(0)
        chain: dict[str, Layer] = {"preprocess": Preprocess()}
        channels = 3
        for name in layer_names()[: layer_names().index(cut) + 1]:
            if name.endswith("pool"):
                chain[name] = MaxPool()
            else:
                filters = BLOCKS[int(name[5]) - 1][1]
                chain[name] = Sequential(conv=Conv2D(channels, filters, 3, rng=rng), relu=ReLU())
                channels = filters
        self.cut = cut
        super().__init__(**chain)
        self.freeze()
