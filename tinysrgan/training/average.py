"""An exponential moving average of a net's weights, which changes less from step to step than the weights do."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers import Layer

Net = TypeVar("Net", bound=Layer)


class MovingAverage(Generic[Net]):
    """``net`` follows ``source``: the net to judge and to keep. Batch-norm's running statistics are averaged too.

    After step t, counted from 1, for every tensor:

        average += (1 - d) (value - average),  d = min(decay, (t - 1) / (t + 9))

    So the first step's weights replace the initial ones, and the average spans about the last tenth of the steps until
    that is 1 / (1 - decay) of them. With a decay of 0, ``net`` is ``source`` itself.
    """

    def __init__(self, source: Net, decay: float):
        self.net = deepcopy(source) if decay else source
        self.decay = decay
        self._pairs = list(zip(self.net.tensors().values(), source.tensors().values(), strict=True)) if decay else []
        self._kernel = ops.FollowKernel()

    def update(self, t: int) -> None:
        rate = 1 - min(self.decay, (t - 1) / (t + 9))
        pairs = [(average.value, tensor.value) for average, tensor in self._pairs]
        ops.in_place(follow, pairs, self._kernel, lambda: {"rate": rate})


def follow(average: Array, value: Array, rate: float) -> None:
    """Move ``average`` towards ``value`` by ``rate`` of the distance."""
    average += rate * (value - average)
