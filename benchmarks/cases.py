"""The rows of the table, and the number of operations that each takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
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

    work: "adversarial" or "pretrain", a training step; "inference", the trained generator alone; or "y", "dx" or "dw"
    of the convolution ``layer``. size: the side of the LR image, in pixels. exact: strict float32, without TF32.
    """

    name: str
    work: str
    upscale: str = "shuffle"
    batch: int = 1
    size: int = 32
    blocks: int = 16
    filters: int = 64
    discriminator_filters: int | None = None  # as many as the generator's
    dense: int = DENSE
    content: str = VGG_LAYER  # or "pixels"
    optimizer: str = "adam"  # the generator's; or "muon"
    device: str = "cpu"
    exact: bool = False
    layer: tuple[int, int, int, int, int] | None = None  # side of the input, C, K, side of the filter, stride

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


# The presets' nets, content losses and optimizers.
NETS: dict[str, dict[str, Any]] = {
    "article": dict(upscale="nearest"),
    "paper": dict(size=24, content="block5_conv4"),
    "qr": dict(**SMALL, discriminator_filters=16, dense=256, content="pixels", optimizer="muon"),
}
# The convolutions that take most of the time: of a residual block, an upscale block, VGG19, the discriminator (stride
# 2), and the generator's first and last, from and to three colours.
LAYERS = (
    (32, 64, 64, 3, 1),
    (64, 64, 256, 3, 1),
    (32, 256, 256, 3, 1),
    (8, 512, 512, 3, 1),
    (64, 128, 128, 3, 2),
    (32, 3, 64, 9, 1),
    (128, 64, 3, 9, 1),
)

GPU_CASES = [
    *(
        Case(f"training step, {net}, batch {batch}", "adversarial", batch=batch, device="cuda", **NETS[net])
        for net in NETS
        for batch in (1, 4, 16, 32)
    ),
    *(
        Case(f"{label}, qr, batch 8", work, batch=8, device="cuda", **NETS["qr"])
        for label, work in (("pre-training step", "pretrain"), ("training step", "adversarial"))
    ),
    *(
        Case(f"strict float32, {net}, batch 16", "adversarial", batch=16, device="cuda", exact=True, **NETS[net])
        for net in NETS
    ),
    *(
        Case(f"upscaling {size}x{size}, {net}", "inference", device="cuda", **NETS[net] | {"size": size})
        for net in NETS
        for size in (32, 128, 512)
    ),
    *(
        Case(
            f"{r}x{r}, {c} to {k}, {side}x{side}{', stride 2' * (stride == 2)}, batch 16: {work}",
            work,
            batch=16,
            device="cuda",
            layer=(side, c, k, r, stride),
        )
        for side, c, k, r, stride in LAYERS
        for work in ("y", "dx", "dw")
    ),
]


def flops(case: Case) -> int:
    """Operations of one run of the case, two for each multiply-add, for direct convolutions.

    The forward pass of a layer, its dx and its dw take the same number of operations. The first layer of a net needs
    no dx if nothing before the net is trained.
    """
    if case.layer:
        side, c, k, r, stride = case.layer
        return 2 * case.batch * prod((c, k, r, r)) * (side // stride) ** 2
    generator = Generator(case.blocks, case.filters, SCALE, case.upscale)
    g = layer_flops(generator, case.size)
    match case.work:
        case "inference":
            total = sum(g)
        case "pretrain":
            total = 3 * sum(g) - g[0]
        case _:
            discriminator = Discriminator(case.hr_size, case.discriminator_filters or case.filters, case.dense)
            d = layer_flops(discriminator, case.hr_size)
            v = [] if case.content == "pixels" else layer_flops(VGG19(case.content), case.hr_size)
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
