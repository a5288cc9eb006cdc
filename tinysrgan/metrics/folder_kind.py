"""Whether a folder holds photographs or codes, which are trained on and judged in different ways."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from tinysrgan.data.images import DataError, read_image
from tinysrgan.metrics import qr_reader

LOOKED_AT = 8  # images of a folder
INK_AND_PAPER = 0.9  # the share of a drawing's pixels that have one of two grey levels, at least
WIDTH = 24  # of a level, which is never quite the same


def folder_kind(paths: Sequence[Path], side: int) -> str:
    """What most of a few images, spread over ``paths``, are: "photographs", "codes" or "small".

    An image with less than ``side`` pixels on a side is small: a blurred code is as grey as a photograph, so only the
    others tell. Unreadable files don't count.
    """
    small, votes = 0, []
    for path in paths[:: -(-len(paths) // LOOKED_AT)]:
        with suppress(DataError):
            image = read_image(path)
            if min(image.size) < side:
                small += 1
            else:
                votes.append(is_photograph(np.asarray(image)))
    if small > len(votes):
        return "small"
    return "photographs" if 2 * sum(votes) > len(votes) else "codes"


def is_photograph(pixels: np.ndarray) -> bool:
    """Whether a uint8 image (H, W, 3) has more than two grey levels, and no code that can be read."""
    grey = pixels.mean(axis=2).astype(np.uint8).ravel()
    shares = np.convolve(np.bincount(grey, minlength=256) / len(grey), np.ones(WIDTH), "valid")
    first = int(shares.argmax())
    others = np.delete(shares, np.s_[max(0, first - WIDTH + 1) : first + WIDTH])
    if shares[first] + others.max() >= INK_AND_PAPER:
        return False
    return not qr_reader.available() or qr_reader.read_code(pixels) is None
