"""Tables of pointers to a net's tensors, which kernels for many tensors at once read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Generic, TypeVar

from tinysrgan.core.device import Array

Made = TypeVar("Made")
Groups = Sequence[tuple[Array, ...]]


class Remembered(Generic[Made]):
    """``make(groups)``, made again only when the arrays of the groups are others.

    Arrays are compared by identity: a CuPy array never moves, and the references here keep the arrays alive.
    """

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._made: Made | None = None

    def __call__(self, make: Callable[[Groups], Made], groups: Groups) -> Made:
        arrays = list(chain(*groups))
        changed = len(arrays) != len(self._arrays) or any(a is not b for a, b in zip(arrays, self._arrays, strict=True))
        if self._made is None or changed:
            self._arrays, self._made = arrays, make(groups)
        return self._made


def check_arrays(groups: Groups) -> None:
    """Raise ValueError unless all arrays are contiguous and of one type, and those of a group have one shape."""
    first = groups[0][0]
    for group in groups:
        if any(x.dtype != first.dtype or x.shape != group[0].shape or not x.flags.c_contiguous for x in group):
            raise ValueError(
                f"A kernel of many tensors takes contiguous arrays of one type, {first.dtype}, groups of one shape, "
                f"not {[(str(x.dtype), x.shape, x.strides) for x in group]}."
            )
