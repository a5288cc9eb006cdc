"""The engine room: whatever has more than one implementation. Layers call these names and never choose."""

from tinysrgan.ops.im2col import conv2d, conv2d_grad_input, conv2d_grad_weight

__all__ = ["conv2d", "conv2d_grad_input", "conv2d_grad_weight"]
