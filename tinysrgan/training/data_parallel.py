"""Data parallelism: several processes (ranks) train one model, each on its slice of every batch.

Every rank has the same nets. Of a batch's N images rank r takes n_r, and computes what one process would compute if
these were the whole batch: a loss, the mean over n_r images, and its gradients. Since

    mean over N images = sum over the ranks of n_r / N (mean over the rank's n_r images)

and a gradient is linear in the loss, one operation makes the whole batch's result of all this: the weighted mean over
the ranks, ``average``. Each rank then takes the same optimizer step, so that the nets stay the same.

* Losses: averaged to be shown.
* Gradients: averaged before the optimizer's step. All gradients of a net lie in one array, so that one message does.
* Batch-norm alone mixes the images of a batch, in both passes. Forward, the batch's mean is the average of the slices'
  means, and so is the mean of squares, which gives the variance. Backward, dx needs two sums over the batch. A rank's
  own dy is that of its own mean, N / n_r times the whole batch's dy. So the average of the ranks' sums is the sum of
  the whole batch's dy; divided by the rank's own n_r it is N / n_r times the whole batch's mean, as its dx must be.
* A large dense layer is the exception: it is split over the ranks (``training/split_dense.py``).

So N ranks compute what one process computes, up to the rounding of sums.

The sums do not overlap with the backward pass (MPI's Iallreduce): an MPI library works on a message while it is called,
or in a thread that takes a core from each rank (measured: benchmarks/results/2026-11-26-mpi.txt).
"""

from __future__ import annotations

from copy import copy

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array, array_module, to_device
from tinysrgan.core.ranks import Ranks
from tinysrgan.layers import BatchNorm, Dense, Layer, Sequential
from tinysrgan.layers.base import Parameter
from tinysrgan.optimizers.adam import Adam
from tinysrgan.training.batch_slice import BatchSlice
from tinysrgan.training.split_dense import SplitDense, pays


class DataParallel(BatchSlice):
    """What the ranks do together to train one model. With one rank, nothing is exchanged."""

    def __init__(self, ranks: Ranks, batch_size: int):
        super().__init__(ranks, batch_size)
        self.gradients: dict[Layer, Array] = {}  # of each net, as one array, but for what is split
        self.split: dict[Adam, dict[str, Parameter]] = {}  # the weights by name that the ranks share out

    def share(self, net: Layer, optimizer: Adam, whole_batch_norm: bool = True) -> None:
        """Give a net rank 0's tensors, one array for all gradients and, unless told not to, the batch's statistics.

        ``optimizer`` trains the net; of a layer that is split it gets this rank's part.
        """
        if self.ranks.size == 1:
            return
        for tensor in net.tensors().values():
            tensor.value[...] = to_device(self.ranks.first(to_device(tensor.value, np)), array_module(tensor.value))
        for layer in [*net.layers()]:
            if isinstance(layer, BatchNorm) and whole_batch_norm:
                self._share_batch_norm(layer)
            if isinstance(layer, Sequential):
                for name, child in layer.chain.items():
                    if isinstance(child, Dense) and self._splits(child.w.value):
                        layer.chain[name] = self._split_dense(child, optimizer)
        split = self.split.get(optimizer, {})
        parameters = [p for name, p in net.parameters().items() if name not in split]
        first = parameters[0].grad
        flat = array_module(first).zeros(sum(p.grad.size for p in parameters), first.dtype)
        start = 0
        for p in parameters:
            p.grad = flat[start : start + p.grad.size].reshape(p.grad.shape)
            start += p.grad.size
        self.gradients[net] = flat

    def _share_batch_norm(self, layer: BatchNorm) -> None:
        def moments(x: Array) -> tuple[Array, Array]:
            """Mean and variance over the batch. Squares are taken about the running mean, which is near the mean."""
            origin = layer.running_mean.value
            mean, variance = ops.moments(x)
            mean = (mean - origin).astype(np.float64)
            mean, square = self.average(array_module(x).stack([mean, variance + mean * mean]))
            return (origin + mean).astype(x.dtype), (square - mean * mean).astype(x.dtype)

        layer.moments = moments
        layer.grad_sums = lambda *operands: self.average(ops.batch_norm_grad_sums(*operands))

    def _splits(self, w: Array) -> bool:
        return array_module(w) is np and pays(w.shape, self.batch_size)  # not tried on GPUs

    def _split_dense(self, layer: Dense, optimizer: Adam) -> SplitDense:
        split = SplitDense(layer, self)
        (name,) = (name for name, p in optimizer.parameters.items() if p is layer.w)
        self.split.setdefault(optimizer, {})[name] = layer.w
        optimizer.parameters[name] = part = Parameter(layer.w.value[split.rows])
        layer.w.grad = part.grad
        for moments in (optimizer.m, optimizer.v):
            moments[name] = moments[name][split.rows].copy()
        return split

    def whole(self, optimizer: Adam) -> Adam:
        """The optimizer as one process has it, to be saved. Makes its net whole, too. On all ranks at once."""
        whole = copy(optimizer)
        whole.m, whole.v = {**optimizer.m}, {**optimizer.v}
        for name, w in self.split.get(optimizer, {}).items():
            self.ranks.collect(w.value)
            for moments in (whole.m, whole.v):
                part, moments[name] = moments[name], np.empty_like(w.value)
                moments[name][self.ranks.part(len(w.value))] = part
                self.ranks.collect(moments[name])
        return whole

    def average_gradients(self, net: Layer) -> None:
        """Make the slices' gradients those of the batch. Between a net's backward pass and the optimizer's step."""
        if self.ranks.size > 1:
            self.average(self.gradients[net])

    def average_losses(self, losses: dict[str, Array]) -> dict[str, Array]:
        """The whole batch's losses, alike on all ranks."""
        if self.ranks.size == 1:
            return losses
        first = next(iter(losses.values()))
        return dict(zip(losses, self.average(array_module(first).stack([*losses.values()])), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any rank."""
        count = np.array([flag], np.float64)
        self.ranks.sum(count)
        return bool(count[0])
