"""The parts of an SRGAN put together: two nets, the losses that judge them, the optimizers that train them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tinysrgan.formats import checkpoint
from tinysrgan.losses import PIXEL_LOSSES, AdversarialLoss, FeatureLoss, ImageLoss
from tinysrgan.models import VGG19, Discriminator, Generator
from tinysrgan.optimizers.adam import Adam
from tinysrgan.optimizers.muon import Muon
from tinysrgan.training.config import Options

OPTIMIZERS = {"adam": Adam, "muon": Muon}


@dataclass
class SRGAN:
    """A generator that sharpens images, a discriminator that tells them from real ones, and what trains the two."""

    generator: Generator
    discriminator: Discriminator
    pixel_loss: ImageLoss
    generator_losses: dict[str, tuple[float, ImageLoss]]  # (weight, loss) by name, for ``perceptual_loss``
    generator_optimizer: Adam
    discriminator_optimizer: Adam

    @classmethod
    def build(cls, options: Options, vgg: VGG19 | None, module: ModuleType) -> SRGAN:
        """New nets as the options have them, on the device of ``module`` (numpy or cupy).

        Without ``vgg`` the content loss compares pixels, as pre-training does: the paper's SRGAN-MSE.
        """
        o = options
        pixel_loss = PIXEL_LOSSES[o.pixel_loss]
        output = "tanh" if o.pixel_loss == "entropy" else "linear"  # whose logarithms must stay finite
        # It counts as grey until training meets colour.
        generator = Generator(o.blocks, o.filters, o.scale, o.upscale, output, grey=True, seed=o.seed)
        discriminator = Discriminator(o.hr_size, o.discriminator_filters, o.discriminator_dense, o.slope, seed=o.seed)
        for net in (generator, discriminator, vgg):
            if net is not None:
                net.to(module)
        losses: dict[str, tuple[float, ImageLoss]] = {
            "content": (1.0, pixel_loss if vgg is None else FeatureLoss(vgg, o.feature_scale)),
            "adversarial": (o.adversarial_weight, AdversarialLoss(discriminator)),
        }
        optimizers = OPTIMIZERS[o.optimizer](generator.parameters()), Adam(discriminator.parameters())
        return cls(generator, discriminator, pixel_loss, losses, *optimizers)

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Write everything that the run needs to go on, and ``state`` about it. Raises CheckpointError."""
        checkpoint.save(path, self._nets(), self._adams(), state)

    def load(self, path: Path) -> None:
        """Take over what ``save`` wrote. Raises CheckpointError, naming all that doesn't fit."""
        checkpoint.load(path, self._nets(), self._adams())

    def _nets(self) -> dict[str, Generator | Discriminator]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def _adams(self) -> dict[str, Adam]:
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}
