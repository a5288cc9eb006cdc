"""Planted faults. Each check must pass on the right code and fail on the faulty code."""

import numpy as np
import pytest

from tinysrgan import losses, ops
from tinysrgan.gradcheck import TOLERANCE, check_gradients, gradcheck_loss
from tinysrgan.gradcheck.registry import weighted_sum
from tinysrgan.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    LeakyReLU,
    MaxPool,
    Parameter,
    PixelShuffle,
    PReLU,
    ReLU,
    Residual,
    Sigmoid,
    Tanh,
    Upsample,
)
from tinysrgan.layers.base import Layer
from tinysrgan.models import Discriminator, Generator
from tinysrgan.models.vgg19 import Preprocess
from tinysrgan.ops.conv import dispatch
from tinysrgan.optimizers.adam import Adam


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, shape)


# ---------------------------------------------------------------- the checks


def gradient(make, *shape):
    """A gradient check of the layer on an input of this shape."""
    return lambda: check_gradients(make(), image(*shape))


def accumulation(make, *shape):
    """Two forward and backward passes accumulate twice the gradient of one."""

    def check():
        layer, x = make().astype(np.float64), image(*shape)
        sums = []
        for _ in range(2):
            layer.backward(np.cos(layer.forward(x)))
            sums.append({path: p.grad.copy() for path, p in layer.parameters().items()})
        for path, once in sums[0].items():
            np.testing.assert_allclose(sums[1][path], 2 * once)

    return check


def read_only(make, *shape):
    """Neither forward nor backward writes into its argument."""

    def check():
        layer, x = make().astype(np.float64), image(*shape)
        x.flags.writeable = False
        dy = np.cos(layer.forward(x))
        dy.flags.writeable = False
        layer.backward(dy)

    return check


def tie_in_max_pool():
    """Among equal maxima, one gets the whole gradient. Random elements have no ties, so this input is constant."""
    layer = MaxPool()
    layer.forward(np.ones((1, 2, 2, 1)))
    assert layer.backward(np.full((1, 1, 1, 1), 5.0)).sum() == 5


def frozen_is_unchanged(make, *shape):
    """A backward pass changes no tensor or gradient of a frozen layer."""

    def check():
        layer, x = make().astype(np.float64).freeze(), image(*shape)
        before = {path: tensor.value.copy() for path, tensor in layer.tensors().items()}
        layer.backward(np.cos(layer.forward(x)))
        assert not any(p.grad.any() for p in layer.parameters().values())
        assert all((tensor.value == before[path]).all() for path, tensor in layer.tensors().items())

    return check


def loss_gradient(function, *shape):
    """A gradient check of the loss function on an input of this shape."""

    def check():
        assert gradcheck_loss(function, image(*shape)) < TOLERANCE

    return check


def perceptual():
    """The gradient of the perceptual loss is right, and the discriminator is not trained."""
    discriminator = Discriminator(16, 4, 8, seed=3).astype(np.float64)
    target = image(2, 16, 16, 3) ** 2
    terms = {"content": (1.0, losses.mean_squared_error), "adversarial": (0.5, losses.AdversarialLoss(discriminator))}

    assert gradcheck_loss(lambda y: weighted_sum(terms)(y, target), image(2, 16, 16, 3)) < TOLERANCE
    assert not any(p.grad.any() for p in discriminator.parameters().values()), "the discriminator was trained"


def adam_first_two_steps():
    """With a constant gradient, m / sqrt(v) is its sign at every step."""
    parameter = Parameter(np.array([1.0, 2.0]))
    adam = Adam({"w": parameter}, learning_rate=0.1)
    for _ in range(2):
        parameter.grad += [3.0, -0.5]
        adam.step()
    np.testing.assert_allclose(parameter.value, [0.8, 2.2], rtol=1e-6)


def adam_clears_gradients():
    """A step sets the gradients to zero."""
    parameter = Parameter(np.ones(3))
    parameter.grad += 1
    Adam({"w": parameter}).step()
    assert not parameter.grad.any()


# ---------------------------------------------------------------- the faults: (layer, method, its wrong version, check)


def after(method, change):
    """The method with its result replaced by ``change(layer, argument, result)``, unless that is None."""

    def wrong(self, argument):
        result = method(self, argument)
        replacement = change(self, argument, result)
        return result if replacement is None else replacement

    return wrong


def backward_of(kind, change):
    return kind, "backward", after(kind.backward, change)


def scale_grad(name, factor):
    def change(layer, dy, dx):
        getattr(layer, name).grad *= factor

    return change


def batch_norm_without(missing):
    """Batch-norm's backward without one of the two terms through the batch statistics."""

    def backward(self, dy):
        x, norm = self.saved()
        std = (norm.variance + self.epsilon) ** 0.5
        normal = (x - norm.mean) / std
        axes = tuple(range(dy.ndim - 1))
        self.gamma.grad += (dy * normal).sum(axes)
        self.beta.grad += dy.sum(axes)
        corrections = {"mean": dy.mean(axes), "variance": normal * (dy * normal).mean(axes)}
        corrections.pop(missing)
        return self.gamma.value / std * (dy - sum(corrections.values()))

    return BatchNorm, "backward", backward


def gamma_gradient_of_raw_x(self, dy):
    """The gradient of gamma computed with x instead of normalized x."""
    x = self._saved[0]
    dx = BATCH_NORM_BACKWARD(self, dy)
    self.gamma.grad[...] = (dy * x).sum(tuple(range(dy.ndim - 1)))
    return dx


BATCH_NORM_BACKWARD = BatchNorm.backward


def prelu_slope_gradient(region):
    """PReLU's backward with a slope gradient of sum(dy * region(x)); the right region is min(x, 0)."""

    def backward(self, dy):
        (x,) = self.saved()
        self.slope.grad += (dy * region(x)).sum(tuple(range(x.ndim - 1)))
        return np.where(x > 0, dy, dy * self.slope.value)

    return PReLU, "backward", backward


def prelu_slope_over_channels(self, dy):
    """The slope gradient summed over all axes but the columns. Its shape is right if there are C columns."""
    x = self._saved[0]
    dx = PRELU_BACKWARD(self, dy)
    self.slope.grad[...] = (dy * np.minimum(x, 0)).sum((0, 1, 3))
    return dx


PRELU_BACKWARD = PReLU.backward


def leaky_relu_swapped(self, dy):
    """The slope applied to positive x."""
    (x,) = self.saved()
    return np.where(x < 0, dy, dy * self.slope)


def shuffle_in_another_order(self, dy):
    """TensorFlow's channel order (row, column, channel) instead of PyTorch's (channel, row, column)."""
    self.saved()
    f, (n, height, width, c) = self.factor, dy.shape
    h, w = height // f, width // f
    return dy.reshape(n, h, f, w, f, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, c * f * f)


def pool_to_all(self, dy):
    """The gradient copied to all pixels of the window."""
    x = self._saved[0]
    MAX_POOL_BACKWARD(self, dy)
    return np.repeat(np.repeat(dy, 2, 1), 2, 2).reshape(x.shape)


def pool_to_all_maxima(self, dy):
    """The gradient copied to every pixel that equals the maximum."""
    x, y = self._saved
    MAX_POOL_BACKWARD(self, dy)
    large_y, large_dy = (np.repeat(np.repeat(small, 2, 1), 2, 2) for small in (y, dy))
    return large_dy * (x == large_y)


MAX_POOL_BACKWARD = MaxPool.backward


def save_x_instead_of_y(activation):
    """An activation's forward that saves x, so that its backward computes with x in place of y."""

    def forward(self, x):
        y = np.tanh(x) if activation is Tanh else 1 / (1 + np.exp(-x))
        self.save_for_backward(x)
        return y

    return forward


def adam_that_keeps_gradients(self):
    gradients = {name: p.grad.copy() for name, p in self.parameters.items()}
    ADAM_STEP(self)
    for name, p in self.parameters.items():
        p.grad[...] = gradients[name]


DENSE_BACKWARD, CONV_BACKWARD = Dense.backward, Conv2D.backward
DENSE_FORWARD, BATCH_NORM_FORWARD = Dense.forward, BatchNorm.forward
SIGMOID, SQUARED, ADAM_STEP = losses.sigmoid, losses.mean_squared_error, Adam.step
PIXEL_ENTROPY = losses.pixel_cross_entropy
GRAD_INPUT, GRAD_WEIGHT = ops.conv2d_grad_input, ops.conv2d_grad_weight
CONV = gradient(lambda: Conv2D(3, 4, 3, rng=np.random.default_rng(1)), 2, 6, 6, 3)
STRIDE = gradient(lambda: Conv2D(3, 4, 3, stride=2, rng=np.random.default_rng(1)), 2, 6, 6, 3)
NORM = gradient(lambda: BatchNorm(3), 2, 4, 5, 3)
PRELU = gradient(lambda: PReLU(3), 2, 4, 5, 3)
DENSE = gradient(lambda: Dense(4, 3), 5, 4)

MUTANTS = {
    "batch-norm returns zeros": (*backward_of(BatchNorm, lambda layer, dy, dx: 0 * dx), NORM),
    "batch-norm forgets the mean": (*batch_norm_without("mean"), NORM),
    "batch-norm forgets the variance": (*batch_norm_without("variance"), NORM),
    "batch-norm's gamma gradient of raw x": (BatchNorm, "backward", gamma_gradient_of_raw_x, NORM),
    "batch-norm's beta gradient missing": (*backward_of(BatchNorm, scale_grad("beta", 0)), NORM),
    "batch-norm's gamma gradient negated": (*backward_of(BatchNorm, scale_grad("gamma", -1)), NORM),
    "PReLU's slope gradient where x is positive": (*prelu_slope_gradient(lambda x: np.maximum(x, 0)), PRELU),
    "PReLU's slope gradient everywhere": (*prelu_slope_gradient(lambda x: x), PRELU),
    "PReLU's slope gradient missing": (*backward_of(PReLU, scale_grad("slope", 0)), PRELU),
    "PReLU's slope gradient halved": (*backward_of(PReLU, scale_grad("slope", 0.5)), PRELU),
    "PReLU's slope gradient summed over channels": (
        PReLU,
        "backward",
        prelu_slope_over_channels,
        gradient(lambda: PReLU(3), 2, 4, 3, 3),
    ),
    "LeakyReLU's sides swapped": (LeakyReLU, "backward", leaky_relu_swapped, gradient(LeakyReLU, 2, 4, 5, 3)),
    "ReLU passes the whole gradient": (
        *backward_of(ReLU, lambda layer, dy, dx: dy),
        gradient(ReLU, 2, 4, 5, 3),
    ),
    "convolution dx with the kernel unflipped": (
        ops,
        "conv2d_grad_input",
        lambda dy, w, *rest: GRAD_INPUT(dy, w[::-1, ::-1], *rest),
        CONV,
    ),
    "convolution dx one pixel off": (
        ops,
        "conv2d_grad_input",
        lambda *args: np.roll(GRAD_INPUT(*args), 1, axis=1),
        CONV,
    ),
    "stride-2 dx one phase off": (
        ops,
        "conv2d_grad_input",
        lambda *args: np.roll(GRAD_INPUT(*args), 1, axis=2),
        STRIDE,
    ),
    "convolution dw with rows and columns swapped": (
        dispatch,
        "conv2d_grad_weight",
        lambda *args: GRAD_WEIGHT(*args).transpose(1, 0, 2, 3),
        CONV,
    ),
    "stride-2 dw one row off": (
        dispatch,
        "conv2d_grad_weight",
        lambda *args: np.roll(GRAD_WEIGHT(*args), 1, axis=0),
        STRIDE,
    ),
    "convolution's bias gradient missing": (*backward_of(Conv2D, scale_grad("b", 0)), CONV),
    "convolution's bias gradient a mean": (*backward_of(Conv2D, scale_grad("b", 1 / 72)), CONV),
    "dense w gradient missing": (*backward_of(Dense, scale_grad("w", 0)), DENSE),
    "dense forgets its bias": (
        Dense,
        "forward",
        lambda self, x: DENSE_FORWARD(self, x) - self.b.value,
        DENSE,
    ),
    "dense b gradient doubled": (*backward_of(Dense, scale_grad("b", 2)), DENSE),
    "residual without the skip connection's gradient": (
        *backward_of(Residual, lambda layer, dy, dx: dx - dy),
        gradient(lambda: Residual(Conv2D(3, 3, 3), Tanh()), 1, 5, 5, 3),
    ),
    "pixel shuffle's backward in another channel order": (
        PixelShuffle,
        "backward",
        shuffle_in_another_order,
        gradient(PixelShuffle, 1, 3, 3, 8),
    ),
    "upsample's gradient a mean": (
        *backward_of(Upsample, lambda layer, dy, dx: dx / 4),
        gradient(Upsample, 1, 3, 3, 2),
    ),
    "max-pool's gradient to all four": (MaxPool, "backward", pool_to_all, gradient(MaxPool, 1, 4, 6, 2)),
    "max-pool's gradient to all equal maxima": (
        MaxPool,
        "backward",
        pool_to_all_maxima,
        tie_in_max_pool,
    ),
    "sigmoid's derivative computed from x": (
        Sigmoid,
        "forward",
        save_x_instead_of_y(Sigmoid),
        gradient(Sigmoid, 2, 3, 3, 2),
    ),
    "tanh's derivative computed from x": (Tanh, "forward", save_x_instead_of_y(Tanh), gradient(Tanh, 2, 3, 3, 2)),
    "VGG's preprocessing without BGR to RGB in backward": (
        *backward_of(Preprocess, lambda layer, dy, dx: dx[..., ::-1]),
        gradient(Preprocess, 1, 3, 3, 3),
    ),
    "dense gradient assigned instead of added": (
        Dense,
        "backward",
        lambda self, dy: (self.zero_grad(), DENSE_BACKWARD(self, dy))[1],
        accumulation(lambda: Dense(4, 3), 5, 4),
    ),
    "convolution gradient assigned instead of added": (
        Conv2D,
        "backward",
        lambda self, dy: (self.zero_grad(), CONV_BACKWARD(self, dy))[1],
        accumulation(lambda: Conv2D(3, 4, 3), 1, 5, 5, 3),
    ),
    "ReLU writes into dy": (
        ReLU,
        "backward",
        lambda self, dy: np.multiply(dy, self.saved()[0] > 0, out=dy),
        read_only(ReLU, 2, 3, 3, 2),
    ),
    "batch-norm centres x in place": (
        BatchNorm,
        "forward",
        lambda self, x: BATCH_NORM_FORWARD(self, np.subtract(x, x.mean((0, 1, 2)), out=x)),
        read_only(lambda: BatchNorm(2), 2, 3, 3, 2),
    ),
    "freeze() does nothing": (
        Layer,
        "freeze",
        lambda self, frozen=True: self,
        frozen_is_unchanged(lambda: Generator(1, 4), 1, 5, 5, 3),
    ),
    "the perceptual loss trains the discriminator": (Layer, "freeze", lambda self, frozen=True: self, perceptual),
    "cross-entropy's gradient negated": (
        losses,
        "sigmoid",
        lambda logits: 1 - SIGMOID(logits),
        loss_gradient(lambda y: losses.binary_cross_entropy(y, 1.0), 5, 1),
    ),
    "squared error's gradient without the 2": (
        losses,
        "mean_squared_error",
        lambda y, target: (SQUARED(y, target)[0], SQUARED(y, target)[1] / 2),
        loss_gradient(lambda y: losses.mean_squared_error(y, y * 0 + 0.3), 2, 3, 3, 3),
    ),
    "pixel cross-entropy's gradient as if through tanh": (
        losses,
        "pixel_cross_entropy",
        lambda y, target: (PIXEL_ENTROPY(y, target)[0], PIXEL_ENTROPY(y, target)[1] * (1 - y * y)),
        loss_gradient(lambda y: losses.pixel_cross_entropy(y, y * 0 + 0.3), 2, 3, 3, 3),
    ),
    "Adam without bias correction": (
        Adam,
        "step",
        lambda self: (setattr(self, "steps", self.steps + 100), ADAM_STEP(self))[1],
        adam_first_two_steps,
    ),
    "Adam does not clear the gradients": (
        Adam,
        "step",
        adam_that_keeps_gradients,
        adam_clears_gradients,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_fault_is_caught(name, monkeypatch):
    owner, attribute, wrong, check = MUTANTS[name]
    check()
    monkeypatch.setattr(owner, attribute, wrong)
    with pytest.raises((AssertionError, ValueError)) as caught:
        check()
    assert isinstance(caught.value, AssertionError) or "read-only" in str(caught.value), (
        "the check crashed instead of failing"
    )
