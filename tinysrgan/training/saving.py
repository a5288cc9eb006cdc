"""A run's SRGAN in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinysrgan.formats import checkpoint
from tinysrgan.layers import Layer
from tinysrgan.optimizers.adam import Adam
from tinysrgan.training.srgan import SRGAN


def save(srgan: SRGAN, path: Path, state: dict[str, Any]) -> None:
    """Write everything that the run needs to go on, and ``state`` about it. Raises CheckpointError.

    All ranks call it at once; rank 0 alone writes.
    """
    nets, optimizers = parts(srgan)
    whole = {name: srgan.parallel.whole(optimizer) for name, optimizer in optimizers.items()}
    if srgan.parallel.ranks.rank == 0:
        checkpoint.save(path, nets, whole, state)


def load(srgan: SRGAN, path: Path) -> None:
    """Read what ``save`` wrote. Raises CheckpointError, naming everything that doesn't fit."""
    checkpoint.load(path, *parts(srgan))


def parts(srgan: SRGAN) -> tuple[dict[str, Layer], dict[str, Adam]]:
    """The nets and the optimizers by their names in the file."""
    nets: dict[str, Layer] = {"generator": srgan.generator, "discriminator": srgan.discriminator}
    if srgan.options.ema:
        nets["average"] = srgan.average.net
    return nets, {"generator": srgan.generator_optimizer, "discriminator": srgan.discriminator_optimizer}
