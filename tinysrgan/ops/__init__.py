"""The operations with more than one implementation. Layers call these names and never choose.

NumPy arrays are computed here; CuPy arrays go to ``ops.cuda``, which launches the kernels of ``kernels/``.
"""

from tinysrgan.core.device import on_gpu
from tinysrgan.ops.activation import leaky_relu, leaky_relu_grad, prelu_grad
from tinysrgan.ops.conv.dispatch import add_conv2d_grads, conv2d, conv2d_grad_input, conv2d_grad_weight, exact
from tinysrgan.ops.cuda.adam import Update as AdamKernel
from tinysrgan.ops.cuda.average import Follow as FollowKernel
from tinysrgan.ops.cuda.losses import cross_entropy as cross_entropy_kernel
from tinysrgan.ops.cuda.losses import mean_sigmoid as mean_sigmoid_kernel
from tinysrgan.ops.cuda.losses import squared_error as squared_error_kernel
from tinysrgan.ops.cuda.muon import Step as MuonKernel
from tinysrgan.ops.elementwise import in_place
from tinysrgan.ops.matmul import add_dense_grads, add_product, dense, matmul
from tinysrgan.ops.normalization import Norm, batch_norm_grad_input, batch_norm_grad_sums, fuses, moments, normalize
from tinysrgan.ops.rearrange import max_pool, max_pool_grad, pixel_shuffle, pixel_unshuffle, upsample, upsample_grad
