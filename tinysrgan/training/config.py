"""What decides a training run: its options, and three sets of them: qr, article and paper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tinysrgan.data.augment import ARTICLE, HARD, Augment


@dataclass
class Options:
    """Everything that decides what a run computes. Saved in its checkpoints; the defaults are the preset ``qr``."""

    preset: str = "qr"
    # data
    hr_size: int = 128
    scale: int = 4
    augment: str = "shift"
    fresh_codes: bool = False
    flip: bool = False
    limit: int | None = None
    # nets
    blocks: int = 8
    filters: int = 32
    upscale: str = "shuffle"
    discriminator_filters: int = 16
    discriminator_dense: int = 256
    slope: float = 0.2
    # losses
    pixel_loss: str = "squares"
    content: str = "pixels"
    feature_scale: float = 1.0
    adversarial_weight: float = 1e-3
    # schedule
    batch_size: int = 8
    pretrain_steps: int = 1200
    steps: int = 100
    epochs: int | None = None
    optimizer: str = "muon"
    pretrain_rate: float = 4e-3
    learning_rate: float = 1e-4
    decay: str = "cosine"
    seed: int = 0
    save_every: int = 100
    exact: bool = False


PRESETS: dict[str, dict[str, Any]] = {
    # A net an eighth of the article's, for QR codes on a laptop; learns from pixels, without VGG19's 80 MB.
    "qr": {},
    # The article's code, its mistakes mended (brief in the README): no pre-training, one epoch, one image a step.
    "article": dict(
        augment="article",
        blocks=16,
        filters=64,
        upscale="nearest",
        discriminator_filters=64,
        discriminator_dense=1024,
        slope=0.3,
        content="block3_conv4",
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
        hr_size=96,
        augment="none",
        blocks=16,
        filters=64,
        discriminator_filters=64,
        discriminator_dense=1024,
        content="block5_conv4",
        feature_scale=1 / 12.75,
        batch_size=16,
        pretrain_steps=1_000_000,
        steps=200_000,
        optimizer="adam",
        pretrain_rate=1e-4,
        learning_rate=1e-4,
        decay="step",
        save_every=1000,
    ),
}


def augmentation(options: Options) -> Augment | None:
    """How ``--augment`` and ``--flip`` vary the training images at every draw."""
    if options.augment == "none" and not options.flip:
        return None
    if options.augment == "article":
        return replace(ARTICLE, flip=options.flip)
    if options.augment in ("hard", "camera"):
        return replace(HARD, flip=options.flip)
    shift = 0.5 if options.augment == "shift" else 0.0
    return Augment(flip=options.flip, shift=shift)
