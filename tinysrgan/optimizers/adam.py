"""Adam (Kingma & Ba 2014, arXiv 1412.6980, algorithm 1)."""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.base import Parameter


class Adam:
    """Adaptive steps: the gradient's running mean over the root of its running square.

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        value -= learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Defaults are the paper's and PyTorch's, except for epsilon, which is Keras' 1e-7.
    """

    def __init__(
        self,
        parameters: dict[str, Parameter],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-7,
    ):
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.steps = 0
        self.m = {name: np.zeros_like(p.value) for name, p in parameters.items()}
        self.v = {name: np.zeros_like(p.value) for name, p in parameters.items()}
        self._kernel = ops.AdamKernel()

    def step(self) -> None:
        """Move every parameter against its gradient, then set the gradients to zero for the next sum."""
        groups = [(p.value, p.grad, self.m[name], self.v[name]) for name, p in self.parameters.items()]
        ops.in_place(update, groups, self._kernel, self.count_step)

    def count_step(self) -> dict[str, float]:
        """Count a step, and return the settings of its ``update``."""
        self.steps += 1
        # The two bias corrections, factored out of m and v: they cost no pass over the parameters.
        correction = (1 - self.beta2**self.steps) ** 0.5
        return {
            "beta1": self.beta1,
            "beta2": self.beta2,
            "rate": self.learning_rate * correction / (1 - self.beta1**self.steps),
            "epsilon": self.epsilon * correction,
        }


def update(
    value: Array, gradient: Array, m: Array, v: Array, beta1: float, beta2: float, rate: float, epsilon: float
) -> None:
    """One step for one parameter, written into its arrays; the gradient is then zero."""
    m += (1 - beta1) * (gradient - m)
    v += (1 - beta2) * (gradient * gradient - v)
    value -= rate * (m / (np.sqrt(v) + epsilon))
    gradient[...] = 0
