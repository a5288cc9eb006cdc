"""The settings of optimizers' updates, such as the learning rate, in device memory, where the kernels read them.

They change from step to step, and a CUDA graph repeats its launches with the arguments that these had at its capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import numpy as np

from tinysrgan.core.device import Array, array_module

Source = Callable[[], Mapping[str, float]]  # the settings by name, in the order in which the kernel reads them

UPDATES, SETTINGS = 16, 4  # the most updates in a step, and settings of one


class Settings:
    """The settings of all updates in a CUDA graph."""

    def __init__(self, xp: ModuleType) -> None:
        self.values = xp.zeros((UPDATES, SETTINGS), np.float64)
        self.sources: list[Source] = []

    def place(self, source: Source) -> Array:
        """Return the memory that will hold what ``source`` returns, for the next update."""
        self.sources.append(source)
        return self.values[len(self.sources) - 1]

    def refresh(self) -> None:
        """Copy the current settings of all updates to the device. Call this once before each launch of the graph."""
        values = np.zeros(self.values.shape)
        for row, source in zip(values, self.sources, strict=False):
            numbers = [*source().values()]
            row[: len(numbers)] = numbers
        np.copyto(self.values, array_module(self.values).asarray(values))  # a copy is no launch


_captured: ContextVar[Settings | None] = ContextVar("captured", default=None)


@contextmanager
def captured(settings: Settings) -> Iterator[None]:
    """Inside this context updates are captured: they will find their settings in ``settings``."""
    token = _captured.set(settings)
    try:
        yield
    finally:
        _captured.reset(token)


def on_device(xp: ModuleType, source: Source) -> Array:
    """The settings that ``source`` returns, float64; while a graph is captured, where ``refresh`` will put them."""
    settings = _captured.get()
    return settings.place(source) if settings else xp.asarray(np.array([*source().values()]))
