"""Adam (Kingma & Ba 2014, arXiv 1412.6980, algorithm 1)."""

from __future__ import annotations

from tinysrgan.core.device import Array, array_module
from tinysrgan.layers.base import Parameter
from tinysrgan.ops import in_place
from tinysrgan.ops.cuda import adam as cuda


class Adam:
    """Steps of learning_rate, each number's own scale divided out by running moments of its gradient.

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        value -= learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Defaults are the paper's and PyTorch's but for epsilon, which is Keras' 1e-7.
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
        self._on_gpu = cuda.Update()
        self.m = {name: array_module(p.value).zeros_like(p.value) for name, p in parameters.items()}
        self.v = {name: array_module(p.value).zeros_like(p.value) for name, p in parameters.items()}

    def step(self) -> None:
        """Move every parameter against its gradient, then set the gradients to zero for the next sum.

        Memory sets the pace here, so every number is fetched once: the formulas above, block by block, written out so
        that they need no array of their own. The gradient, which is to be zero anyway, holds what lies between.
        """
        self.steps += 1
        # The corrections of m and v, taken out of the division: a pass less over every parameter.
        correction = (1 - self.beta2**self.steps) ** 0.5
        rate, epsilon = self.learning_rate * correction / (1 - self.beta1**self.steps), self.epsilon * correction

        def update(value: Array, g: Array, m: Array, v: Array) -> None:
            xp = array_module(g)
            m += (1 - self.beta1) * (g - m)
            g *= g
            g -= v
            g *= 1 - self.beta2
            v += g
            xp.sqrt(v, out=g)
            g += epsilon
            xp.divide(m, g, out=g)
            g *= rate
            value -= g
            g[...] = 0

        groups = [(p.value, p.grad, self.m[name], self.v[name]) for name, p in self.parameters.items()]
        betas = {"beta1": self.beta1, "beta2": self.beta2}
        in_place(update, groups, kernel=lambda groups: self._on_gpu(groups, **betas, rate=rate, epsilon=epsilon))
