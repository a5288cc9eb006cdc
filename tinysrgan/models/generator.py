"""SRGAN's generator (Ledig et al. 2017, arXiv 1609.04802, figure 4): a residual net, mostly at low resolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinysrgan.layers import (
    BatchNorm,
    Conv2D,
    Layer,
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

# The value ranges of an image inside a net. Everything outside the nets uses "signed".
RANGES = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0), "bytes": (0.0, 255.0)}
VALUE_RANGES = tuple(f"{inside}:{outside}" for inside in RANGES for outside in RANGES)


class Generator(Sequential):
    """(N, H, W, 3) in [-1, 1] -> (N, scale H, scale W, 3), trained towards [-1, 1].

    ``blocks`` residual blocks of ``filters`` channels; ``scale`` is 2, 4 or 8: one upscale block for each doubling.
    ``upscale``: "shuffle" (the paper: conv to 4 x filters, pixel shuffle, PReLU) or "nearest" (the article's code:
    conv to 4 x filters, nearest upsampling, PReLU). ``output``: "linear" (the paper), "tanh" or "sigmoid".

    ``value_range``: the ranges of the first convolution's input and the last one's output, "signed:signed" for [-1, 1]
    at both ends. Imported nets may have "unit", [0, 1], or "bytes", 0..255 (the article: "bytes:bytes"); a Rescale
    layer then converts. ``norm``: whether there are batch-norms; imported nets may have none. Raises ValueError for an
    option that is none of these.

    ``grey``: whether it was trained on grey images alone. The layers are the same; ``Upscaler`` then feeds it luma.
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
        if scale not in (2, 4, 8):
            raise ValueError(f"The generator's scale is 2, 4 or 8, not {scale}.")
        if upscale not in ("shuffle", "nearest"):
            raise ValueError(f"The generator's upscale is 'shuffle' or 'nearest', not '{upscale}'.")
        if output not in OUTPUTS:
            raise ValueError(f"The generator's output is 'linear', 'tanh' or 'sigmoid', not '{output}'.")
        if value_range not in VALUE_RANGES:
            raise ValueError(f"The generator's value_range is one of {', '.join(VALUE_RANGES)}, not '{value_range}'.")
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
        self.scale = scale
        rng = np.random.default_rng(seed)

        doublings = scale.bit_length() - 1
        wide = 4 * filters  # channels after nearest upsampling, which keeps them all
        upscales: list[Layer] = []
        for i in range(doublings):
            if upscale == "shuffle":
                upscales.append(shuffle_upscale(filters, rng))
            else:
                upscales.append(nearest_upscale(filters if i == 0 else wide, wide, rng))

        range_in, range_out = value_range.split(":")
        activation = OUTPUTS[output]
        super().__init__(
            **({"rescale_in": rescale("signed", range_in)} if range_in != "signed" else {}),
            head=Sequential(conv=Conv2D(3, filters, 9, rng=rng), prelu=PReLU(filters)),
            body=Residual(
                *[residual_block(filters, norm, rng) for _ in range(blocks)],
                conv=Conv2D(filters, filters, 3, rng=rng),
                **({"norm": BatchNorm(filters)} if norm else {}),
            ),
            upscale=Sequential(*upscales),
            tail=Conv2D(filters if upscale == "shuffle" else wide, 3, 9, rng=rng),
            **({"output": activation()} if activation else {}),
            **({"rescale_out": rescale(range_out, "signed")} if range_out != "signed" else {}),
        )


def rescale(source: str, target: str) -> Rescale:
    """The layer that converts from one of the RANGES to another."""
    (low, high), (new_low, new_high) = RANGES[source], RANGES[target]
    factor = (new_high - new_low) / (high - low)
    return Rescale(factor, new_low - low * factor)


def residual_block(filters: int, norm: bool, rng: np.random.Generator) -> Layer:
    """x + norm(conv(prelu(norm(conv(x))))), or without ``norm`` x + conv(prelu(conv(x)))."""
    return Residual(
        conv1=Conv2D(filters, filters, 3, rng=rng),
        **({"norm1": BatchNorm(filters)} if norm else {}),
        prelu=PReLU(filters),
        conv2=Conv2D(filters, filters, 3, rng=rng),
        **({"norm2": BatchNorm(filters)} if norm else {}),
    )


def shuffle_upscale(filters: int, rng: np.random.Generator) -> Layer:
    """Double the resolution: four times the channels, then every four of them become a 2x2 cell of one channel."""
    return Sequential(
        conv=Conv2D(filters, 4 * filters, 3, icnr_factor=2, rng=rng), shuffle=PixelShuffle(2), prelu=PReLU(filters)
    )


def nearest_upscale(in_channels: int, out_channels: int, rng: np.random.Generator) -> Layer:
    """Double the resolution by repeating pixels, keeping all the channels."""
    return Sequential(
        conv=Conv2D(in_channels, out_channels, 3, rng=rng), upsample=Upsample(2), prelu=PReLU(out_channels)
    )
