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
# Channels by Keras' names, in order: block1_conv1, block1_conv2, block1_pool, ..., block5_pool.
LAYERS = {
    f"block{block}_{name}": channels
    for block, (convolutions, channels) in enumerate(BLOCKS, start=1)
    for name in (*(f"conv{i + 1}" for i in range(convolutions)), "pool")
}
MEAN_BGR = (103.939, 116.779, 123.68)


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

    ``cut`` is one of Keras' names, ``block3_conv4`` in the article (its "layer 10"). Preprocessing is the first layer,
    so callers must not rescale. Random and frozen; ``formats.vgg19_weights`` loads the weights. Raises ValueError for
    other names.
    """

    def __init__(self, cut: str = "block3_conv4"):
        if cut not in LAYERS:
            raise ValueError(f"VGG19 has no layer '{cut}'; it has {', '.join(LAYERS)}.")
        rng = np.random.default_rng(0)
        chain: dict[str, Layer] = {"preprocess": Preprocess()}
        in_channels = 3
        for name, channels in LAYERS.items():
            if name.endswith("pool"):
                chain[name] = MaxPool()
            else:
                chain[name] = Sequential(conv=Conv2D(in_channels, channels, 3, rng=rng), relu=ReLU())
            in_channels = channels
            if name == cut:
                break
        self.cut = cut
        super().__init__(**chain)
        self.freeze()
