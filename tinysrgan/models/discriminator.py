"""SRGAN's discriminator (Ledig et al. 2017, arXiv 1609.04802, figure 4): is this image real or generated?"""

from __future__ import annotations

import numpy as np

from tinysrgan.layers import BatchNorm, Conv2D, Dense, Flatten, Layer, LeakyReLU, Sequential

PAPER_SLOPE = 0.2  # of every LeakyReLU


class Discriminator(Sequential):
    """(N, size, size, 3) in [-1, 1] -> (N, 1) logits; their sigmoid is the probability of "real".

    Pairs of 3x3 convolutions, the second of each with stride 2, double the channels from ``filters`` to
    8 x filters while the image shrinks by 16; two dense layers follow, of ``dense`` features and of 1. The dense
    layers fix the image size; any size works, since "same" convolutions round it up.

    ``slope`` is that of the LeakyReLUs after convolutions. The one after the dense layer always has the paper's: the
    article's code differs from the paper only in the convolutions, where it leaves Keras' default of 0.3.
    """

    def __init__(
        self, size: int = 128, filters: int = 64, dense: int = 1024, slope: float = PAPER_SLOPE, seed: int | None = None
    ):
        self.config = dict(size=size, filters=filters, dense=dense, slope=slope)
        rng = np.random.default_rng(seed)

        def block(in_channels: int, out_channels: int, stride: int) -> Layer:
            conv = Conv2D(in_channels, out_channels, 3, stride, rng=rng)
            return Sequential(conv=conv, norm=BatchNorm(out_channels), act=LeakyReLU(slope))

        f = filters
        side = -(-size // 16)
        super().__init__(
            head=Sequential(conv=Conv2D(3, f, 3, rng=rng), act=LeakyReLU(slope)),
            body=Sequential(
                block(f, f, 2),
                block(f, 2 * f, 1),
                block(2 * f, 2 * f, 2),
                block(2 * f, 4 * f, 1),
                block(4 * f, 4 * f, 2),
                block(4 * f, 8 * f, 1),
                block(8 * f, 8 * f, 2),
            ),
            flatten=Flatten(),
            dense=Dense(side * side * 8 * f, dense, rng=rng),
            act=LeakyReLU(PAPER_SLOPE),
            logit=Dense(dense, 1, rng=rng),
        )
