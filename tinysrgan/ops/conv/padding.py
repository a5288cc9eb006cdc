"""Where a "same" convolution looks: output size and padding, as Keras and TensorFlow have it."""

from __future__ import annotations

from typing import NamedTuple


class Same(NamedTuple):
    """One axis of a "same" convolution: ``out`` positions; position p covers the inputs from p stride - before."""

    out: int
    before: int
    after: int


def same(length: int, size: int, stride: int) -> Same:
    """Geometry of one axis of ``length`` inputs under a filter of ``size``.

    out = ceil(length / stride). The zeros that this needs are shared out evenly; an odd one goes after the image,
    so stride 2 on an even length pads only after it. (PyTorch's ``padding=1`` differs: it pads before.)
    """
    out = -(-length // stride)
    padding = max((out - 1) * stride + size - length, 0)
    return Same(out, padding // 2, padding - padding // 2)
