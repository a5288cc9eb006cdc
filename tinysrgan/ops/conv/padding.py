"""Output size and padding of a "same" convolution, as in Keras and TensorFlow."""

from __future__ import annotations

from typing import NamedTuple


class Same(NamedTuple):
    """One axis of a "same" convolution.

    It has ``out`` output positions; position p reads the inputs from p stride - before on. ``before`` and ``after``
    count the padding zeros on both sides.
    """

    out: int
    before: int
    after: int


def same(length: int, size: int, stride: int) -> Same:
    """Output size and padding of an axis of ``length`` inputs under a filter of ``size``.

    out = ceil(length / stride). The padding is split evenly; if it is odd, the extra zero goes after the image. So
    stride 2 on an even length pads only after it. (PyTorch's ``padding=1`` differs: it pads before.)
    """
    out = -(-length // stride)
    padding = max((out - 1) * stride + size - length, 0)
    return Same(out, padding // 2, padding - padding // 2)
