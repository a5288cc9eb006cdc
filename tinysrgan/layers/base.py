"""The base class of all layers: parameters, a forward pass, and a backward pass written by hand.

The protocol; tests/layers/test_protocol.py checks it for every layer:

* ``forward(x) -> y`` saves what ``backward`` needs in train mode, and nothing in eval mode.
* ``backward(dy) -> dx`` takes the gradient of the loss with respect to the output, *adds* the parameters' gradients to
  ``Parameter.grad`` and returns the gradient with respect to the input. It uses up what ``forward`` saved.
* Neither writes into its argument.
* A frozen layer still returns ``dx``, but leaves its parameters, their gradients and its buffers unchanged.
* A few layers take the activation after them as a second argument: ``Sequential`` passes it where that is faster.
* A layer computes in the dtype of its input, on the device of its input: NumPy's functions call CuPy's for arrays on a
  GPU, and ``ops`` has everything with more than one implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Self

import numpy as np

from tinysrgan.core.device import Array, to_device


class Parameter:
    """A trained tensor: its ``value``, and ``grad``, the sum of its gradients since the last optimizer step."""

    def __init__(self, value: Array):
        self.value = value
        self.grad = np.zeros_like(value)


class Buffer:
    """A tensor that is saved but not trained, such as batch-norm's running mean."""

    def __init__(self, value: Array):
        self.value = value


class Layer:
    """Base class of all layers and nets. Attributes that are layers are children; Parameters, Buffers are its own."""

    path = ""
    training = True
    frozen = False
    _saved: Any = None

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{type(self).__name__} '{self.path}'" if self.path else type(self).__name__

    def check_shape(self, x: Array, fits: bool, shape: str) -> None:
        """Raise ValueError, with the layer's name and the shape that it takes, unless ``fits``."""
        if not fits:
            raise ValueError(f"{self} takes {shape}, not {x.shape}.")

    def save_for_backward(self, *arrays: Any) -> None:
        """Save what ``backward`` needs, in train mode only."""
        self._saved = arrays if self.training else None

    def saved(self) -> tuple[Any, ...]:
        """Return and drop what ``forward`` saved. Raises RuntimeError with the layer's name if nothing is saved."""
        if self._saved is None:
            raise RuntimeError(f"{self}: backward() needs a forward() in train mode before it, one for each backward.")
        saved, self._saved = self._saved, None
        return saved

    def children(self) -> dict[str, Layer]:
        """The layers directly inside this one, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all layers inside it, in forward order, each with the prefix of its names: ``body.3.``."""
        yield prefix, self
        for name, child in self.children().items():
            yield from child.walk(f"{prefix}{name}.")

    def layers(self) -> Iterator[Layer]:
        """This layer and all layers inside it, in forward order."""
        return (layer for _, layer in self.walk())

    def tensors(self) -> dict[str, Parameter | Buffer]:
        """Everything that a checkpoint stores: parameters and buffers, by path, for example ``body.3.conv1.w``."""
        named = ((prefix + name, value) for prefix, layer in self.walk() for name, value in vars(layer).items())
        return {path: value for path, value in named if isinstance(value, Parameter | Buffer)}

    def parameters(self) -> dict[str, Parameter]:
        """The trained tensors by path."""
        return {path: tensor for path, tensor in self.tensors().items() if isinstance(tensor, Parameter)}

    def train(self, training: bool = True) -> Self:
        """Set train mode (save for backward, use batch statistics) and return the layer."""
        for layer in self.layers():
            layer.training = training
            layer._saved = None
        return self

    def eval(self) -> Self:
        """Set eval mode (save nothing, use running statistics) and return the layer."""
        return self.train(False)

    def freeze(self, frozen: bool = True) -> Self:
        """Keep parameters and buffers unchanged from now on; gradients still flow through to the input."""
        for layer in self.layers():
            layer.frozen = frozen
        return self

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        for parameter in self.parameters().values():
            parameter.grad[...] = 0

    def astype(self, dtype: Any) -> Self:
        """Convert every tensor, for example to float64 for a gradient check, and return the layer."""
        return self._convert(lambda array: array.astype(dtype))

    def to(self, module: ModuleType) -> Self:
        """Move every tensor, gradients included, to the device of ``module`` (numpy or cupy), and return the layer."""
        return self._convert(lambda array: to_device(array, module))

    def _convert(self, function: Callable[[Array], Array]) -> Self:
        for tensor in self.tensors().values():
            for name, array in vars(tensor).items():
                setattr(tensor, name, function(array))
        return self

    def label(self, path: str) -> Self:
        """Name this layer and those inside it by path, for error messages; return the layer."""
        for prefix, layer in self.walk(path and f"{path}."):
            layer.path = prefix[:-1]
        return self


@contextmanager
def frozen(net: Layer) -> Iterator[None]:
    """Freeze a net inside this context: the generator's gradient passes through the discriminator untrained."""
    before = [(layer, layer.frozen) for layer in net.layers()]
    net.freeze()
    try:
        yield
    finally:
        for layer, was in before:
            layer.frozen = was
