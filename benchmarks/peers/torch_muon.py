"""``tinysrgan.optimizers.Muon`` in PyTorch, written to be fast: all matrices of one shape in one batch of products."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from tinysrgan.optimizers.muon import COLOURS, NEWTON_SCHULZ


class Muon:
    """Muon for the convolutions between feature maps, Adam with the given options for all else."""

    def __init__(self, net: nn.Module, lr: float, momentum: float = 0.95, **adam: Any):
        matrices = [p for p in net.parameters() if p.ndim == 4 and min(p.shape[:2]) > COLOURS]
        matrices.sort(key=lambda p: p.shape)
        self.groups = [list(group) for _, group in groupby(matrices, key=lambda p: p.shape)]
        self.m = [torch.zeros(len(group), len(group[0]), group[0][0].numel()).to(group[0]) for group in self.groups]
        self.lr, self.momentum = lr, momentum
        self.parameters = list(net.parameters())
        others = {id(p) for p in matrices}
        self.adam = torch.optim.Adam([p for p in self.parameters if id(p) not in others], lr, **adam)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group, m in zip(self.groups, self.m, strict=True):
            g = torch.stack([p.grad.flatten(1) for p in group])
            m.mul_(self.momentum).add_(g)
            update = orthogonal(g + self.momentum * m) * (-self.lr * 0.2 * max(m.shape[1:]) ** 0.5)
            torch._foreach_add_(group, [one.reshape(p.shape) for one, p in zip(update, group, strict=True)])
        self.adam.step()


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """As ``tinysrgan.optimizers.muon.orthogonal``, for x: (matrices, rows, columns)."""
    a, b, c = NEWTON_SCHULZ
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
