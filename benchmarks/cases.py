"""The rows of the table, and the number of operations that each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinysrgan.layers import Conv2D, Dense, Layer, MaxPool, PixelShuffle, Upsample
from tinysrgan.models import VGG19, Discriminator, Generator

SCALE = 4
DENSE = 1024  # width of the discriminator's first dense layer
VGG_LAYER = "block3_conv4"
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Case:
    """One row.

    work: "adversarial" or "pretrain", a training step; or "inference", the trained generator alone. size: the side of
    the LR image, in pixels. The discriminator has as many filters as the generator.
    """

    name: str
    work: str
    upscale: str = "shuffle"
    batch: int = 1
    size: int = 32
    blocks: int = 16
    filters: int = 64

    @property
    def hr_size(self) -> int:
        return SCALE * self.size


UPSCALES = {"shuffle": "pixel shuffle", "nearest": "nearest upsampling"}
SMALL: dict[str, Any] = dict(blocks=8, filters=32)  # the default preset, qr

CASES = [
    *(
        Case(f"training step, {label}, batch {batch}", "adversarial", upscale, batch)
        for upscale, label in UPSCALES.items()
        for batch in (1, 8)
    ),
    *(
        Case(f"upscaling {size}x{size}, {label}", "inference", upscale, size=size)
        for upscale, label in UPSCALES.items()
        for size in (32, 128, 256)
    ),
    Case("small net: pre-training step, batch 8", "pretrain", batch=8, **SMALL),
    Case("small net: upscaling 128x128", "inference", size=128, **SMALL),
]


def flops(case: Case) -> int:
    """Operations of one run of the case, two for each multiply-add, for direct convolutions.

    The forward pass of a layer, its dx and its dw take the same number of operations. The first layer of a net needs
    no dx if nothing before the net is trained.
    """
    generator = Generator(case.blocks, case.filters, SCALE, case.upscale)
    g = layer_flops(generator, case.size)
    match case.work:
        case "inference":
            total = sum(g)
        case "pretrain":
            total = 3 * sum(g) - g[0]
        case _:
            d = layer_flops(Discriminator(case.hr_size, case.filters, DENSE), case.hr_size)
            v = layer_flops(VGG19(VGG_LAYER), case.hr_size)
            fakes = sum(g)
            train_discriminator = 2 * (3 * sum(d) - d[0])
            train_generator = 3 * sum(g) - g[0] + 2 * sum(d) + 3 * sum(v)
            total = fakes + train_discriminator + train_generator
    return case.batch * total


def layer_flops(net: Layer, side: int) -> list[int]:
    """Operations of the forward pass of each convolution and dense layer, for one image of side x side pixels."""
    result = []
    for layer in net.layers():
        if isinstance(layer, Conv2D):
            side = -(-side // layer.stride)
            result.append(2 * side * side * layer.w.value.size)
        elif isinstance(layer, Dense):
            result.append(2 * layer.w.value.size)
        elif isinstance(layer, PixelShuffle | Upsample):
            side *= layer.factor
        elif isinstance(layer, MaxPool):
            side //= 2
    return result
