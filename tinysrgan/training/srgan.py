"""The parts of an SRGAN: two nets, the losses that compare images, the optimizers, and how they are saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinysrgan.core.ranks import ALONE
from tinysrgan.formats import checkpoint
from tinysrgan.layers import Conv2D
from tinysrgan.losses import PIXEL_LOSSES, AdversarialLoss, FeatureLoss, ImageLoss
from tinysrgan.models import VGG19, Discriminator, Generator
from tinysrgan.optimizers.adam import Adam
from tinysrgan.training.average import MovingAverage
from tinysrgan.training.config import OPTIMIZERS, Options
from tinysrgan.training.data_parallel import DataParallel


@dataclass
class SRGAN:
    """A generator that makes images sharp, a discriminator that tells them from real ones, and what trains the two."""

    generator: Generator
    discriminator: Discriminator
    pixel_loss: ImageLoss
    generator_losses: dict[str, tuple[float, ImageLoss]]  # (weight, loss) by name, for ``perceptual_loss``
    generator_optimizer: Adam
    discriminator_optimizer: Adam
    options: Options
    parallel: DataParallel
    average: MovingAverage[Generator] | None = None

    @classmethod
    def build(cls, options: Options, vgg: VGG19 | None, module: ModuleType) -> SRGAN:
        """New nets of the options' sizes, on the device of ``module`` (numpy or cupy).

        Without ``vgg`` the content loss compares pixels, as pre-training does: the paper's SRGAN-MSE.
        """
        o = options
        pixel_loss = PIXEL_LOSSES[o.pixel_loss]
        output = o.output
        if output == "by loss":
            output = "tanh" if o.pixel_loss == "bce" else "linear"  # bce's logarithms need values inside -1 and 1
        form = (o.blocks, o.filters, o.scale, o.upscale, output, o.net_values)
        # It counts as grey until training meets colour.
        generator = Generator(*form, grey=True, norm=o.norm == "batch", seed=o.seed)
        discriminator = Discriminator(o.hr_size, o.discriminator_filters, o.discriminator_dense, o.slope, seed=o.seed)
        for trained in (generator, discriminator):
            next(layer for layer in trained.layers() if isinstance(layer, Conv2D)).needs_dx = False
        for net in (generator, discriminator, vgg):
            if net is not None:
                net.to(module)
        return cls(
            generator,
            discriminator,
            pixel_loss,
            {
                "content": (1.0, pixel_loss if vgg is None else FeatureLoss(vgg, o.feature_scale)),
                "adversarial": (o.adversarial_weight, AdversarialLoss(discriminator)),
            },
            OPTIMIZERS[o.optimizer](generator.parameters()),
            Adam(discriminator.parameters()),
            options,
            DataParallel(ALONE, o.batch_size),
            MovingAverage(generator, o.ema) if o.ema else None,
        )

    @property
    def averaged_generator(self) -> Generator:
        """The generator to judge and to keep: with ``--ema`` the moving average, else the trained one itself."""
        return self.average.net if self.average else self.generator

    @property
    def reads_verdicts(self) -> bool:
        """Whether the next step computes D(real) and D(fake): every tenth does."""
        return self.discriminator_optimizer.steps % 20 == 0  # two updates a step

    def set_learning_rate(self, rate: float) -> None:
        self.generator_optimizer.learning_rate = self.discriminator_optimizer.learning_rate = rate

    def update_average(self) -> None:
        """Let the moving average, if there is one, follow the generator. Once a step."""
        if self.average:
            self.average.update(self.generator_optimizer.steps)

    def note_colour(self, images: np.ndarray) -> None:
        """Keep in the generator's config whether all images it was trained on are grey; images: (N, H, W, 3)."""
        grey = self.generator.config["grey"] and not self.parallel.any(bool((images != images[..., :1]).any()))
        for generator in (self.generator, self.averaged_generator):
            generator.config["grey"] = grey

    def share(self, parallel: DataParallel) -> None:
        """Train on this rank's slice of every batch from now on, together with the other ranks."""
        self.parallel = parallel
        optimizers = self._optimizers()
        for name, net in (("generator", self.generator), ("discriminator", self.discriminator)):
            parallel.share(net, optimizers[name], whole_batch_norm=not self.options.local_batch_norm)

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Write everything that the run needs to go on, and ``state`` about it. Raises CheckpointError.

        All ranks call it at once; rank 0 alone writes.
        """
        optimizers = {name: self.parallel.whole(optimizer) for name, optimizer in self._optimizers().items()}
        if self.parallel.ranks.rank == 0:
            checkpoint.save(path, self._nets(), optimizers, state)

    def load(self, path: Path) -> None:
        """Read what ``save`` wrote. Raises CheckpointError, naming everything that doesn't fit."""
        checkpoint.load(path, self._nets(), self._optimizers())

    def _nets(self) -> dict[str, Generator | Discriminator]:
        averages = {"average": self.average.net} if self.average else {}
        return {"generator": self.generator, "discriminator": self.discriminator, **averages}

    def _optimizers(self) -> dict[str, Adam]:
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}
