"""Lesson 13: data parallel training on two ranks.

    python examples/13_data_parallel.py [picture.png]

Every rank is a process with its own copy of the net and its own slice of the batch. Three rules make all ranks
together compute what one process would with the whole batch: average the gradients, take batch-norm's mean and variance
over all slices, and start equal. Here both ranks live in one process and an "allreduce" is a sum in a list; among real
processes it is MPI's, and ``mpiexec -n 2`` starts them. Read next: tinysrgan/layers/norm.py.
"""

import sys
from copy import deepcopy

import numpy as np

from tinysrgan.core.device import Array
from tinysrgan.layers import BatchNorm, Conv2D, Layer, PReLU, Sequential
from tinysrgan.losses import mean_squared_error
from tinysrgan.optimizers.adam import Adam

rng = np.random.default_rng(0)
RANKS, STEPS = 2, 20
x = rng.standard_normal((8, 10, 10, 3))
x[4:] += 1  # the second rank's images are brighter
target = rng.standard_normal((8, 10, 10, 3))


def allreduce(parts: list[Array]) -> Array:
    """The sum over all ranks, which every rank receives."""
    return np.sum(parts, axis=0)


class Ranks:
    """A chain of layers on several ranks: xs and dys are lists of slices, one for each rank."""

    def __init__(self, net: Sequential, shared_statistics: bool):
        self.nets = [deepcopy(net) for _ in range(RANKS)]  # they start equal
        self.chains = list(zip(*[net.chain.values() for net in self.nets], strict=True))
        self.shared = shared_statistics

    def forward(self, xs: list[Array]) -> list[Array]:
        for copies in self.chains:
            if self.shared and isinstance(copies[0], BatchNorm):
                xs = self.norm_forward(copies, xs)
            else:
                xs = [layer.forward(part) for layer, part in zip(copies, xs, strict=True)]
        return xs

    def backward(self, dys: list[Array]) -> list[Array]:
        for copies in reversed(self.chains):
            if self.shared and isinstance(copies[0], BatchNorm):
                dys = self.norm_backward(copies, dys)
            else:
                dys = [layer.backward(part) for layer, part in zip(copies, dys, strict=True)]
        return dys

    def norm_forward(self, copies: tuple[Layer, ...], xs: list[Array]) -> list[Array]:
        """Batch-norm with the whole batch's moments: one allreduce of N, of the sum and of the sum of squares."""
        sums = [(np.full(3, part.size / 3), part.sum((0, 1, 2)), (part * part).sum((0, 1, 2))) for part in xs]
        n, total, square = allreduce(sums)
        self.n, self.mean = n, total / n
        self.std = np.sqrt(square / n - self.mean**2 + copies[0].epsilon)
        self.normals = [(part - self.mean) / self.std for part in xs]
        return [norm.gamma.value * z + norm.beta.value for norm, z in zip(copies, self.normals, strict=True)]

    def norm_backward(self, copies: tuple[Layer, ...], dys: list[Array]) -> list[Array]:
        """The two subtracted terms are means over the whole batch as well: one more allreduce."""
        own = [np.stack([dy.sum((0, 1, 2)), (dy * z).sum((0, 1, 2))]) for dy, z in zip(dys, self.normals, strict=True)]
        for norm, (sum_dy, sum_dy_normal) in zip(copies, own, strict=True):
            norm.beta.grad += sum_dy
            norm.gamma.grad += sum_dy_normal
        mean_dy, mean_dy_normal = allreduce(own) / self.n
        scale = copies[0].gamma.value / self.std
        return [scale * (dy - mean_dy - z * mean_dy_normal) for dy, z in zip(dys, self.normals, strict=True)]


def train(shared_statistics: bool) -> tuple[float, float, list[float]]:
    """The largest difference of the gradients and of the weights from one process, and the weights' by step."""
    one = Sequential(Conv2D(3, 3, 3, rng=np.random.default_rng(1)), PReLU(3), BatchNorm(3)).astype(np.float64)
    ranks = Ranks(one, shared_statistics)
    optimizers = [Adam(net.parameters(), 1e-2) for net in (one, *ranks.nets)]
    gradients, weights = [], []
    for _ in range(STEPS):
        one.backward(mean_squared_error(one.forward(x), target)[1])
        ys = ranks.forward(np.split(x, RANKS))
        losses = [mean_squared_error(y, t) for y, t in zip(ys, np.split(target, RANKS), strict=True)]
        ranks.backward([gradient / RANKS for _, gradient in losses])  # a slice's mean counts half in the whole's
        for name, parameter in one.parameters().items():
            copies = [net.parameters()[name] for net in ranks.nets]
            total = allreduce([copy.grad for copy in copies])
            gradients.append(np.abs(total - parameter.grad).max())
            for copy in copies:
                copy.grad[...] = total
        for optimizer in optimizers:
            optimizer.step()
        pairs = [(p.value, net.parameters()[name].value) for net in ranks.nets for name, p in one.parameters().items()]
        weights.append(max(float(np.abs(a - b).max()) for a, b in pairs))
    return max(gradients), weights[-1], weights


gradient_error, weight_error, curve = train(shared_statistics=True)
local_gradient_error, local_weight_error, local_curve = train(shared_statistics=False)
print(f"two ranks of 4 images against one process with 8, after {STEPS} steps: largest difference of")
print(f"{'':34s}{'gradients':>12s}{'weights':>12s}")
print(f"{'statistics of the whole batch':34s}{gradient_error:12.1e}{weight_error:12.1e}")
print(f"{'statistics of each slice':34s}{local_gradient_error:12.1e}{local_weight_error:12.1e}")
print("Averaged gradients alone train another net: each rank's batch-norm sees other images.")

if len(sys.argv) > 1:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(np.maximum(curve, 1e-18), label="statistics of the whole batch", color="#1f6fb2")
    axes.semilogy(local_curve, label="statistics of each slice", color="#c8501e")
    axes.set(xlabel="step", ylabel="weights: two ranks - one")
    axes.legend()
    figure.savefig(sys.argv[1], dpi=100)
    print("drawn in", sys.argv[1])
