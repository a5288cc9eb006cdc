"""The options of a training run, each written once, and four presets of them: qr, photo, article and paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tinysrgan.core.cli import EXACT_HELP, real, whole
from tinysrgan.core.errors import UserError
from tinysrgan.core.value_ranges import VALUE_RANGES
from tinysrgan.data.augment import ARTICLE, HARD, Augment
from tinysrgan.losses import PIXEL_LOSSES
from tinysrgan.models.generator import OUTPUTS
from tinysrgan.models.vgg19 import LAYERS
from tinysrgan.optimizers.adam import Adam
from tinysrgan.optimizers.muon import Muon

OPTIMIZERS = {"adam": Adam, "muon": Muon}
# What --augment varies; "camera" photographs some of the codes and varies the others as "hard" does. "crops" is
# ``data.photographs.Crops``.
AUGMENTATIONS = {
    "none": Augment(),
    "shift": Augment(shift=0.5),
    "hard": HARD,
    "camera": HARD,
    "article": ARTICLE,
    "crops": Augment(),
}

# The nets of the article and the paper.
LARGE = dict(blocks=16, filters=64, discriminator_filters=64, discriminator_dense=1024)

# What each preset changes in the defaults of ``Options``.
PRESETS: dict[str, dict[str, Any]] = {
    # A net an eighth of the article's, for QR codes on a laptop. It learns from pixels, without VGG19's 80 MB.
    "qr": {},
    # The same net for photographs, trained on pixels alone.
    "photo": dict(hr_size=96, augment="crops", pretrain_steps=3000, steps=0, save_every=300),
    # The article's code, with its mistakes corrected (docs/article.md): no pre-training, one epoch, one image a step.
    "article": dict(
        **LARGE,
        augment="article",
        upscale="nearest",
        slope=0.3,
        content_loss="block3_conv4",
        batch_size=1,
        pretrain_steps=0,
        epochs=1,
        optimizer="adam",
        learning_rate=1e-3,
        decay="none",
        save_every=500,
    ),
    # Ledig et al. 2017, section 3.2: SRGAN-VGG54.
    "paper": dict(
        **LARGE,
        hr_size=96,
        augment="crops",
        content_loss="block5_conv4",
        feature_scale=1 / 12.75,
        batch_size=16,
        pretrain_steps=1_000_000,
        steps=200_000,
        optimizer="adam",
        pretrain_learning_rate=1e-4,
        learning_rate=1e-4,
        decay="step",
        save_every=1000,
    ),
}


def option(
    default: Any,
    help: str | None = None,
    allowed: tuple[Any, ...] | Callable[[str], Any] | None = None,
    *,
    group: str | None = None,
    metavar: str | None = None,
    changeable: bool = False,
) -> Any:
    """A field of ``Options``. The command line's option and the check of saved options are made from it.

    ``help`` is for --help, which adds the default; without it only presets set the option. ``allowed`` is a tuple of
    choices, or a function that reads a number and checks its range. A resumed run may change what is ``changeable``.
    """
    facts = {"help": help, "allowed": allowed, "group": group, "metavar": metavar, "changeable": changeable}
    return field(default=default, metadata=facts)


_data, _nets, _schedule = (partial(option, group=group) for group in ("data", "nets and losses", "schedule"))


@dataclass
class Options:
    """Everything that decides what a run computes. Saved in its checkpoints; the defaults are the preset ``qr``."""

    preset: str = option("qr", "where the other options start from", tuple(PRESETS))

    hr_size: int = _data(128, "side of the clear images, in pixels", whole(1, 2048))
    scale: int = _data(4, "how many times smaller the blurred images are", (2, 4, 8))
    augment: str = _data(
        "shift",
        "none; sub-pixel shifts; these, rotation, blur, dimming and noise; camera: codes as photographs show them; "
        "the article's; crops: of photographs at their own resolution, mirrored and turned by quarters",
        tuple(AUGMENTATIONS),
    )
    synthetic: bool = _data(False, "train on new QR codes; the folder's only judge")
    flip: bool = _data(False, "mirror half of the images (not for QR codes)")
    max_images: int | None = _data(None, "use only so many of the images", whole(1))

    blocks: int = _nets(8, "the generator's residual blocks", whole(1, 64))
    filters: int = _nets(32, "the generator's channels", whole(1, 512))
    upscale: str = _nets("shuffle", "pixel shuffle, or the article's upsampling", ("shuffle", "nearest"))
    norm: str = _nets("batch", None, ("batch", "none"))
    output: str = _nets("by loss", None, ("by loss", *OUTPUTS))
    net_values: str = _nets("signed:signed", None, VALUE_RANGES)
    discriminator_filters: int = _nets(16, None, whole(1, 512))
    discriminator_dense: int = _nets(256, None, whole(1, 8192))
    slope: float = _nets(0.2, None, real(0))
    pixel_loss: str = _nets(
        "mse",
        "mean squared error; or binary cross-entropy, for black and white: fewer images, the net ends in tanh",
        tuple(PIXEL_LOSSES),
    )
    content_loss: str = _nets(
        "pixels", "pixels, or a layer of VGG19 to compare features of", ("pixels", *LAYERS), metavar="LAYER"
    )
    feature_scale: float = _nets(1.0, None, real(0))
    adversarial_weight: float = _nets(1e-3, "weight of the adversarial loss", real(0))
    ema: float = _nets(
        0.0,
        "judge and save a moving average of the generator, such as 0.999, not its last weights",
        real(0, below=1),
        metavar="DECAY",
    )

    batch_size: int = _schedule(8, "images a step", whole(1, 4096))
    pretrain_steps: int = _schedule(1200, "steps on pixels alone", whole(0, 10**9), changeable=True)
    steps: int = _schedule(100, "adversarial steps", whole(0, 10**9), changeable=True)
    epochs: int | None = _schedule(
        None, "the same in passes over the training images", whole(0, 10**9), changeable=True
    )
    optimizer: str = _schedule("muon", "what trains the generator; muon needs fewer images", tuple(OPTIMIZERS))
    pretrain_learning_rate: float = _schedule(4e-3, "the learning rate in pre-training", real(0), changeable=True)
    learning_rate: float = _schedule(1e-4, "and in the adversarial phase", real(0), changeable=True)
    decay: str = _schedule("cosine", None, ("cosine", "step", "none"))
    save_every: int = _schedule(100, "steps between checkpoints", whole(1), changeable=True)
    exact: bool = _schedule(False, EXACT_HELP)
    local_batch_norm: bool = _schedule(False, "mpiexec: each process normalizes its own images alone")
    no_cuda_graph: bool = _schedule(False, "launch a GPU's kernels one by one", changeable=True)
    seed: int = _schedule(0, "same seed, same run", whole(0))

    def saves(self, done: int) -> bool:
        """Whether a run writes a checkpoint after so many steps, without being stopped."""
        return done % self.save_every == 0 or done in (self.pretrain_steps, self.pretrain_steps + self.steps)

    @property
    def last_activation(self) -> str:
        """The generator's ``output``: by the loss, tanh for bce, whose logarithms need values in -1..1, else linear."""
        by_loss = "tanh" if self.pixel_loss == "bce" else "linear"
        return by_loss if self.output == "by loss" else self.output


def augmentation(options: Options) -> Augment | None:
    """How ``--augment`` and ``--flip`` vary the training images at every draw. Raises UserError."""
    if options.augment == "camera" and options.flip:
        raise UserError("--augment camera photographs QR codes, and a mirrored one isn't one: leave --flip out.")
    if options.augment == "crops" and (options.synthetic or options.flip):
        raise UserError("--augment crops cuts photographs and mirrors half of them: leave --synthetic and --flip out.")
    if options.augment == "none" and not options.flip:
        return None
    return replace(AUGMENTATIONS[options.augment], flip=options.flip)
