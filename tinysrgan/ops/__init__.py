"""The operations with more than one implementation. Layers call these names and never choose.

NumPy arrays are computed here; CuPy arrays go to ``ops.cuda``, which launches the kernels of ``kernels/``.
"""

from tinysrgan.ops.conv.dispatch import conv2d, conv2d_grad_input, conv2d_grad_weight, exact
from tinysrgan.ops.elementwise import by_rows, elementwise, in_place, sum_per_channel
from tinysrgan.ops.matmul import add_product, matmul

__all__ = [
    "add_product",
    "by_rows",
    "conv2d",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "elementwise",
    "exact",
    "in_place",
    "matmul",
    "sum_per_channel",
]
