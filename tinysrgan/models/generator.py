"""SRGAN's generator (Ledig et al. 2017, arXiv 1609.04802, figure 4): a residual net that works at low resolution."""

from __future__ import annotations

import numpy as np

from tinysrgan.layers import BatchNorm, Conv2D, Layer, PixelShuffle, PReLU, Residual, Sequential, Tanh, Upsample


class Generator(Sequential):
    """(N, H, W, 3) in [-1, 1] -> (N, scale H, scale W, 3), trained towards [-1, 1].

    ``blocks`` residual blocks of ``filters`` channels; ``scale`` is 2, 4 or 8: one upscale block for each doubling.
    ``upscale``: "shuffle" (the paper: conv to 4 x filters, pixel shuffle, PReLU) or "nearest" (the article's code:
    conv to 4 x filters, nearest upsampling, PReLU). ``output``: "linear" (the paper) or "tanh".
    """

    def __init__(
        self,
        blocks: int = 16,
        filters: int = 64,
        scale: int = 4,
        upscale: str = "shuffle",
        output: str = "linear",
        seed: int | None = None,
    ):
        if scale not in (2, 4, 8):
            raise ValueError(f"The generator's scale is 2, 4 or 8, not {scale}.")
        if upscale not in ("shuffle", "nearest"):
            raise ValueError(f"The generator's upscale is 'shuffle' or 'nearest', not '{upscale}'.")
        if output not in ("linear", "tanh"):
            raise ValueError(f"The generator's output is 'linear' or 'tanh', not '{output}'.")
        self.config = dict(blocks=blocks, filters=filters, scale=scale, upscale=upscale, output=output)
        self.scale = scale
        rng = np.random.default_rng(seed)

        doublings = scale.bit_length() - 1
        wide = 4 * filters  # channels after nearest upsampling, which spends none of them on space
        upscales: list[Layer] = []
        for i in range(doublings):
            if upscale == "shuffle":
                upscales.append(shuffle_upscale(filters, rng))
            else:
                upscales.append(nearest_upscale(filters if i == 0 else wide, wide, rng))

        super().__init__(
            head=Sequential(conv=Conv2D(3, filters, 9, rng=rng), prelu=PReLU(filters)),
            body=Residual(
                *[residual_block(filters, rng) for _ in range(blocks)],
                conv=Conv2D(filters, filters, 3, rng=rng),
                norm=BatchNorm(filters),
            ),
            upscale=Sequential(*upscales),
            tail=Conv2D(filters if upscale == "shuffle" else wide, 3, 9, rng=rng),
            **({"output": Tanh()} if output == "tanh" else {}),
        )


def residual_block(filters: int, rng: np.random.Generator) -> Layer:
    """x + norm(conv(prelu(norm(conv(x)))))."""
    return Residual(
        conv1=Conv2D(filters, filters, 3, rng=rng),
        norm1=BatchNorm(filters),
        prelu=PReLU(filters),
        conv2=Conv2D(filters, filters, 3, rng=rng),
        norm2=BatchNorm(filters),
    )


def shuffle_upscale(filters: int, rng: np.random.Generator) -> Layer:
    """Double the resolution: four times the channels, then four channels make one 2x2 cell."""
    return Sequential(
        conv=Conv2D(filters, 4 * filters, 3, before_shuffle=2, rng=rng), shuffle=PixelShuffle(2), prelu=PReLU(filters)
    )


def nearest_upscale(inputs: int, outputs: int, rng: np.random.Generator) -> Layer:
    """Double the resolution by repeating pixels, keeping all the channels."""
    return Sequential(conv=Conv2D(inputs, outputs, 3, rng=rng), upsample=Upsample(2), prelu=PReLU(outputs))
