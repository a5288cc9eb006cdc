"""The parts of an SRGAN: two nets, the losses that compare images, the optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from tinysrgan.core.ranks import ALONE
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
    average: MovingAverage[Generator]

    @classmethod
    def build(cls, options: Options, vgg: VGG19 | None, module: ModuleType) -> SRGAN:
        """New nets of the options' sizes, on the device of ``module`` (numpy or cupy).

        Without ``vgg`` the content loss compares pixels, as pre-training does: the paper's SRGAN-MSE.
        """
        o = options
        pixel_loss = PIXEL_LOSSES[o.pixel_loss]
        form = (o.blocks, o.filters, o.scale, o.upscale, o.last_activation, o.net_values)
        grey = True  # until training meets colour
        generator = Generator(*form, grey, norm=o.norm == "batch", seed=o.seed)
        discriminator = Discriminator(o.hr_size, o.discriminator_filters, o.discriminator_dense, o.slope, seed=o.seed)
        for trained in (generator, discriminator):
            next(layer for layer in trained.layers() if isinstance(layer, Conv2D)).needs_dx = False
        for net in filter(None, (generator, discriminator, vgg)):
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
            MovingAverage(generator, o.ema),
        )

    @property
    def logs_probabilities(self) -> bool:
        """Whether the next step computes D(real) and D(fake), for the log: every tenth does."""
        return self.discriminator_optimizer.steps % 20 == 0  # two updates a step

    def set_learning_rate(self, rate: float) -> None:
        self.generator_optimizer.learning_rate = self.discriminator_optimizer.learning_rate = rate

    def share(self, parallel: DataParallel) -> None:
        """Train on this rank's slice of every batch from now on, together with the other ranks."""
        self.parallel = parallel
        for net, optimizer in (
            (self.generator, self.generator_optimizer),
            (self.discriminator, self.discriminator_optimizer),
        ):
            parallel.share(net, optimizer, whole_batch_norm=not self.options.local_batch_norm)
