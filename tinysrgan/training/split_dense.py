"""A dense layer whose weights are shared out over the ranks: model parallelism, where data parallelism is too slow.

A convolution has few weights and much to compute for each image, so every rank has all weights and its own images. A
large dense layer is the other way round: each weight is read for one multiplication an image, and its gradient would be
most of what the ranks exchange. So each rank has a part of the weights, and the ranks exchange images instead
(Krizhevsky 2014, arXiv 1404.5997).
"""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers import Dense
from tinysrgan.training.batch_slice import BatchSlice


class SplitDense(Dense):
    """A dense layer on all images of the batch, with this rank's rows of w: the columns of x that meet them.

        y = the sum over the ranks of x[:, rows] w[rows], + b
        dx[:, rows] = dy w[rows]^T;  dw[rows] = x[:, rows]^T dy

    ``forward`` and ``backward`` take and return this rank's images. The other rows of w are not kept up to date.
    """

    def __init__(self, layer: Dense, batch: BatchSlice):
        vars(self).update(vars(layer))
        self.batch = batch
        self.rows = batch.ranks.part(len(self.w.value))

    def forward(self, x: Array) -> Array:
        x = self.batch.all_images(x)[:, self.rows]
        self.save_for_backward(x)
        y = ops.matmul(x, self.w.value[self.rows])
        self.batch.ranks.sum(y)
        return y[self.batch.slice] + self.b.value

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        # The factor turns the gradient of this rank's mean loss into that of the whole batch's.
        dy = self.batch.all_images(self.batch.weight * dy)
        if not self.frozen:
            ops.add_dense_grads(x, dy, self.w.grad, self.b.grad)
        dx = np.zeros((len(dy), len(self.w.value)), dy.dtype)
        dx[:, self.rows] = ops.matmul(dy, self.w.value[self.rows].T)
        self.batch.ranks.sum(dx)
        return dx[self.batch.slice] / self.batch.weight


def pays(shape: tuple[int, int], images: int) -> bool:
    """Whether to split weights of this shape: the ranks then send fewer bytes for the images than for the gradient.

    An adversarial step has three forward and three backward passes through the discriminator, and two gradients.
    """
    rows, columns = shape
    return 3 * images * (rows + columns) < rows * columns
