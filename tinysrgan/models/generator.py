"""SRGAN's generator (Ledig et al. 2017, arXiv 1609.04802, figure 4): a residual net, mostly at low resolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinysrgan.core.value_ranges import VALUE_RANGES, conversion
from tinysrgan.layers import (
    BatchNorm,
    Conv2D,
    PixelShuffle,
    PReLU,
    Rescale,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    Upsample,
)

OUTPUTS = {"linear": None, "tanh": Tanh, "sigmoid": Sigmoid}
CHOICES = {"scale": (2, 4, 8), "upscale": ("shuffle", "nearest"), "output": tuple(OUTPUTS), "value_range": VALUE_RANGES}


class Generator(Sequential):
    """(N, H, W, 3) in [-1, 1] -> (N, scale H, scale W, 3), trained towards [-1, 1].

    ``blocks`` residual blocks of ``filters`` channels; ``scale`` is 2, 4 or 8: one upscale block for each doubling.
    ``upscale``: "shuffle" (the paper: conv to 4 x filters, pixel shuffle, PReLU) or "nearest" (the article's code:
    conv to 4 x filters, nearest upsampling, PReLU). ``output``: "linear" (the paper), "tanh" or "sigmoid".

    ``value_range``: the ranges of the first convolution's input and the last one's output, "signed:signed" for [-1, 1]
    at both ends. Imported nets may have "unit", [0, 1], or "bytes", 0..255 (the article: "bytes:bytes"); a Rescale
    layer then converts. ``norm``: whether there are batch-norms; imported nets may have none. ``grey``: whether it was
    trained on grey images alone; ``Upscaler`` then feeds it luma. Raises ValueError for any other option.
    """

    def __init__(
        self,
        blocks: int = 16,
        filters: int = 64,
        scale: int = 4,
        upscale: str = "shuffle",
        output: str = "linear",
        value_range: str = "signed:signed",
        grey: bool = False,
        norm: bool = True,
        seed: int | None = None,
    ):
        self.config: dict[str, Any] = dict(
            blocks=blocks,
            filters=filters,
            scale=scale,
            upscale=upscale,
            output=output,
            value_range=value_range,
            grey=grey,
            norm=norm,
        )
        for name, choices in CHOICES.items():
            if (given := self.config[name]) not in choices:
                *others, last = map(repr, choices)
                raise ValueError(f"The generator's {name} is {', '.join(others)} or {last}, not {given!r}.")
        self.scale = scale
        rng = np.random.default_rng(seed)

        doublings = scale.bit_length() - 1
        wide = filters if upscale == "shuffle" else 4 * filters  # channels after an upscale block
        upscales = [upscale_block(upscale, wide if i else filters, filters, rng) for i in range(doublings)]
        range_in, range_out = value_range.split(":")
        activation = OUTPUTS[output]
        super().__init__(
            rescale_in=Rescale(*conversion("signed", range_in)) if range_in != "signed" else None,
            head=Sequential(conv=Conv2D(3, filters, 9, rng=rng), prelu=PReLU(filters)),
            body=Residual(
                *[residual_block(filters, norm, rng) for _ in range(blocks)],
                conv=Conv2D(filters, filters, 3, rng=rng),
                norm=BatchNorm(filters) if norm else None,
            ),
            upscale=Sequential(*upscales),
            tail=Conv2D(wide, 3, 9, rng=rng),
            output=activation() if activation else None,
            rescale_out=Rescale(*conversion(range_out, "signed")) if range_out != "signed" else None,
        )


def residual_block(filters: int, norm: bool, rng: np.random.Generator) -> Residual:
    """x + norm(conv(prelu(norm(conv(x))))), or without ``norm`` x + conv(prelu(conv(x)))."""
    return Residual(
        conv1=Conv2D(filters, filters, 3, rng=rng),
        norm1=BatchNorm(filters) if norm else None,
        prelu=PReLU(filters),
        conv2=Conv2D(filters, filters, 3, rng=rng),
        norm2=BatchNorm(filters) if norm else None,
    )


def upscale_block(kind: str, in_channels: int, filters: int, rng: np.random.Generator) -> Sequential:
    """Double the resolution after a convolution to 4 x filters channels.

    "shuffle": every four channels become a 2x2 cell of one. "nearest": every pixel is repeated, and all channels stay.
    """
    conv = Conv2D(in_channels, 4 * filters, 3, icnr_factor=2 if kind == "shuffle" else 0, rng=rng)
    if kind == "shuffle":
        return Sequential(conv=conv, shuffle=PixelShuffle(2), prelu=PReLU(filters))
    return Sequential(conv=conv, upsample=Upsample(2), prelu=PReLU(4 * filters))
