"""A rank's slice of every batch, and how a value of the whole batch is put together from the slices."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import Ranks


class BatchSlice:
    """This rank's part of every batch of ``batch_size`` images: ``slice``, and ``weight``, its share of the images.

    Raises UserError if there are fewer images than ranks.
    """

    def __init__(self, ranks: Ranks, batch_size: int):
        if batch_size < ranks.size:
            raise UserError(
                f"--batch-size {batch_size} is too small for {ranks.size} processes: give each an image a step, or "
                "start fewer."
            )
        self.ranks, self.batch_size = ranks, batch_size
        self.slice = ranks.part(batch_size)
        self.weight = len(range(batch_size)[self.slice]) / batch_size

    def average(self, x: Array) -> Array:
        """Replace x by the mean over the ranks, weighted by their shares of the batch, and return it."""
        x *= self.weight
        self.ranks.sum(x)
        return x

    def all_images(self, x: Array) -> Array:
        """Gather a batch: takes this rank's images, (n, ...), and returns those of all ranks, (N, ...)."""
        batch = np.zeros((self.batch_size, *x.shape[1:]), x.dtype)
        batch[self.slice] = x
        self.ranks.sum(batch)
        return batch
