"""The operations with more than one implementation. Layers call these names and never choose.

NumPy arrays are computed here; CuPy arrays go to ``ops.cuda``, which launches the kernels of ``kernels/``.
"""

from tinysrgan.ops.activation import leaky_relu, leaky_relu_grad, prelu_grad
from tinysrgan.ops.conv.dispatch import conv2d, conv2d_grad_input, conv2d_grad_weight, exact
from tinysrgan.ops.cuda.adam import Update as AdamKernel
from tinysrgan.ops.elementwise import by_rows, in_place, sum_per_channel
from tinysrgan.ops.matmul import add_product, matmul
from tinysrgan.ops.normalization import batch_norm_grad_input, batch_norm_grad_sums, moments, scale_and_shift
from tinysrgan.ops.rearrange import max_pool, max_pool_grad, pixel_shuffle, pixel_unshuffle, upsample, upsample_grad

__all__ = [
    "AdamKernel",
    "add_product",
    "batch_norm_grad_input",
    "batch_norm_grad_sums",
    "by_rows",
    "conv2d",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "exact",
    "in_place",
    "leaky_relu",
    "leaky_relu_grad",
    "matmul",
    "max_pool",
    "max_pool_grad",
    "moments",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu_grad",
    "scale_and_shift",
    "sum_per_channel",
    "upsample",
    "upsample_grad",
]
