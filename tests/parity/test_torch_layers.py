"""Layers, nets, losses and Adam compared with PyTorch in float64: outputs and gradients agree to 1e-10.

PyTorch takes images as (N, C, H, W) and has no "same" padding with a stride, so ``conv2d`` pads by hand.
"""

import numpy as np
import pytest

from tinysrgan.gradcheck.registry import weighted_sum
from tinysrgan.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool,
    Parameter,
    PixelShuffle,
    PReLU,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    Upsample,
)
from tinysrgan.losses import AdversarialLoss, FeatureLoss, binary_cross_entropy, mean_squared_error, sigmoid
from tinysrgan.models import VGG19, Discriminator, Generator
from tinysrgan.models.vgg19 import Preprocess
from tinysrgan.optimizers.adam import Adam

torch = pytest.importorskip("torch", reason="PyTorch, the reference of these tests, is not installed")
functional = torch.nn.functional

TOLERANCE = 1e-10


def uniform(*shape, seed=0):
    """Random elements in [-1, 1], float64."""
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def assert_close(result, truth, name=""):
    truth = np.asarray(truth.detach())
    np.testing.assert_allclose(result, truth, rtol=0, atol=TOLERANCE * max(1, np.abs(truth).max()), err_msg=name)


def check(layer, x, reference, training=True):
    """Compare y, dx and every parameter's gradient with those of ``reference(x, tensors by name)`` in PyTorch.

    x and y are (N, H, W, C) or (N, C) for both; ``images`` converts a reference that takes (N, C, H, W).
    """
    layer = layer.astype(np.float64).train(training)
    layer.zero_grad()
    rng = np.random.default_rng(1)
    for tensor in layer.tensors().values():
        tensor.value += rng.uniform(0.05, 0.2, tensor.value.shape)
    leaves = {name: torch.tensor(tensor.value) for name, tensor in layer.tensors().items()}
    for name in layer.parameters():
        leaves[name].requires_grad_()
    x_leaf = torch.tensor(x, requires_grad=True)

    expected = reference(x_leaf, leaves)
    y = layer.forward(x)
    assert y.shape == expected.shape
    assert_close(y, expected, "y")
    if training:
        dy = uniform(*y.shape, seed=2)
        expected.backward(torch.tensor(dy))
        assert_close(layer.backward(dy), x_leaf.grad, "dx")
        for name, parameter in layer.parameters().items():
            assert_close(parameter.grad, leaves[name].grad, name)
    return leaves


def images(function):
    """Convert a reference for (N, C, H, W) to one for (N, H, W, C)."""
    return lambda x, p: function(x.permute(0, 3, 1, 2), p).permute(0, 2, 3, 1)


def padding(length, kernel_size, stride):
    """The zeros before and after an axis, as TensorFlow documents "same"."""
    total = max(kernel_size - stride if length % stride == 0 else kernel_size - length % stride, 0)
    return total // 2, total - total // 2


def conv2d(x, p, prefix="", stride=1):
    w = p[f"{prefix}w"]
    sides = *padding(x.shape[3], w.shape[1], stride), *padding(x.shape[2], w.shape[0], stride)
    return functional.conv2d(functional.pad(x, sides), w.permute(3, 2, 0, 1), p[f"{prefix}b"], stride)


def batch_norm(x, p, prefix=""):
    return functional.batch_norm(x, None, None, p[f"{prefix}gamma"], p[f"{prefix}beta"], True, 0, 1e-3)


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "kernel_size", "stride", "shape"),
    [
        (3, 4, 3, 1, (5, 6)),
        (3, 4, 3, 1, (1, 1)),
        (3, 6, 1, 1, (4, 5)),
        (5, 6, 5, 1, (7, 4)),
        (3, 8, 9, 1, (12, 10)),
        (8, 3, 9, 1, (10, 13)),
        (3, 8, 9, 1, (4, 3)),
        (24, 24, 3, 1, (18, 21)),
        (16, 40, 3, 1, (16, 16)),
        (8, 6, 3, 2, (6, 8)),
        (8, 6, 3, 2, (7, 5)),
        (3, 6, 3, 2, (8, 7)),
        (8, 6, 5, 2, (6, 9)),
        (8, 6, 1, 2, (6, 5)),
        (5, 6, 3, 3, (8, 10)),
        (40, 20, 3, 1, (3, 2)),
    ],
)
def test_conv2d(in_channels, out_channels, kernel_size, stride, shape):
    layer = Conv2D(in_channels, out_channels, kernel_size, stride)
    check(layer, uniform(2, *shape, in_channels), images(lambda x, p: conv2d(x, p, stride=stride)))


def test_dense():
    check(Dense(7, 5), uniform(4, 7), lambda x, p: x @ p["w"] + p["b"])


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 1, 1, 6), (1, 3, 3, 6)])
def test_batch_norm_in_train_mode(shape):
    layer, x = BatchNorm(6, momentum=0.7), 3 * uniform(*shape) + 5
    leaves = check(layer, x, images(batch_norm))
    # PyTorch's momentum is one minus ours. Its running variance is unbiased: n / (n - 1) times the batch's.
    n = x.size / 6
    mean, variance = leaves["running_mean"].clone(), torch.zeros(6, dtype=torch.float64)
    functional.batch_norm(torch.tensor(x).permute(0, 3, 1, 2), mean, variance, training=True, momentum=0.3)
    assert_close(layer.running_mean.value, mean)
    assert_close(layer.running_variance.value, 0.7 * leaves["running_variance"] + variance * (n - 1) / n)


def test_batch_norm_in_eval_mode():
    def reference(x, p):
        return functional.batch_norm(x, p["running_mean"], p["running_variance"], p["gamma"], p["beta"], False, 0, 1e-3)

    check(BatchNorm(6), uniform(2, 5, 4, 6), images(reference), training=False)


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (PReLU(4), images(lambda x, p: functional.prelu(x, p["slope"]))),
        (LeakyReLU(), lambda x, p: functional.leaky_relu(x, 0.2)),
        (LeakyReLU(0.3), lambda x, p: functional.leaky_relu(x, 0.3)),
        (ReLU(), lambda x, p: functional.relu(x)),
        (Sigmoid(), lambda x, p: torch.sigmoid(x)),
        (Tanh(), lambda x, p: torch.tanh(x)),
        (Flatten(), lambda x, p: x.flatten(1)),
        (PixelShuffle(2), images(lambda x, p: functional.pixel_shuffle(x, 2))),
        (Upsample(2), images(lambda x, p: functional.interpolate(x, scale_factor=2, mode="nearest"))),
        (Upsample(3), images(lambda x, p: functional.interpolate(x, scale_factor=3, mode="nearest"))),
        (MaxPool(), images(lambda x, p: functional.max_pool2d(x, 2))),
    ],
)
@pytest.mark.parametrize("shape", [(2, 6, 4, 4), (3, 5, 7, 4), (1, 2, 3, 4)])
def test_activations_and_layers_that_rearrange_elements(layer, reference, shape):
    x = 3 * uniform(*shape)
    x[0, 0, 0, :2] = 0  # at a kink both take the derivative from the left
    check(layer, x, reference)


@pytest.mark.parametrize("levels", [2, 3])
def test_max_pool_with_ties(levels):
    """With so few levels, most windows have several equal maxima. PyTorch takes the first too."""
    x = np.random.default_rng(0).integers(0, levels, (2, 8, 8, 3)).astype(np.float64)
    check(MaxPool(), x, images(lambda x, p: functional.max_pool2d(x, 2)))


def test_pixel_shuffle_by_three():
    check(PixelShuffle(3), uniform(2, 2, 3, 18), images(lambda x, p: functional.pixel_shuffle(x, 3)))


def test_residual_block():
    layer = Residual(conv=Conv2D(4, 4, 3), norm=BatchNorm(4), inner=Sequential(ReLU(), Conv2D(4, 4, 1)))

    def reference(x, p):
        y = batch_norm(conv2d(x, p, "conv."), p, "norm.")
        return x + conv2d(functional.relu(y), p, "inner.1.")

    check(layer, uniform(2, 5, 6, 4), images(reference))


# ---------------------------------------------------------------- nets


@pytest.mark.parametrize("upscale", ["shuffle", "nearest"])
def test_generator_matches_the_paper(upscale):
    blocks = 2

    def reference(x, p):
        prelu = lambda x, name: functional.prelu(x, p[f"{name}.slope"])  # noqa: E731
        head = y = prelu(conv2d(x, p, "head.conv."), "head.prelu")
        for block in range(blocks):
            name = f"body.{block}."
            z = prelu(batch_norm(conv2d(y, p, f"{name}conv1."), p, f"{name}norm1."), f"{name}prelu")
            y = y + batch_norm(conv2d(z, p, f"{name}conv2."), p, f"{name}norm2.")
        y = head + batch_norm(conv2d(y, p, "body.conv."), p, "body.norm.")
        for i in range(2):
            y = conv2d(y, p, f"upscale.{i}.conv.")
            if upscale == "shuffle":
                y = functional.pixel_shuffle(y, 2)
            else:
                y = functional.interpolate(y, scale_factor=2, mode="nearest")
            y = prelu(y, f"upscale.{i}.prelu")
        return torch.tanh(conv2d(y, p, "tail."))

    check(Generator(blocks, 4, 4, upscale, "tanh", seed=1), uniform(2, 5, 6, 3), images(reference))


@pytest.mark.parametrize("size", [32, 21])
def test_discriminator_matches_the_paper(size):
    def reference(x, p):
        leaky = lambda x: functional.leaky_relu(x, 0.2)  # noqa: E731
        y = leaky(conv2d(x.permute(0, 3, 1, 2), p, "head.conv."))
        for block, stride in enumerate((2, 1, 2, 1, 2, 1, 2)):
            y = conv2d(y, p, f"body.{block}.conv.", stride)
            y = leaky(batch_norm(y, p, f"body.{block}.norm."))
        y = y.permute(0, 2, 3, 1).flatten(1)
        return leaky(y @ p["dense.w"] + p["dense.b"]) @ p["logit.w"] + p["logit.b"]

    check(Discriminator(size, 4, 10, seed=1), uniform(3, size, size, 3), reference)


def vgg_features(x, p, convolutions=((1, 1), (1, 2), (2, 1))):
    """VGG19's features up to block2_conv1; x: (N, C, H, W) in [-1, 1]."""
    mean = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64)
    y = 127.5 * (x.flip(1) + 1) - mean[:, None, None]
    for block, i in convolutions:
        if block > 1 and i == 1:
            y = functional.max_pool2d(y, 2)
        y = functional.relu(conv2d(y, p, f"block{block}_conv{i}.conv."))
    return y


def test_vgg19_matches_its_paper():
    check(VGG19("block2_conv1").freeze(False), uniform(2, 9, 8, 3), images(vgg_features))


def test_preprocessing():
    check(Preprocess(), uniform(2, 3, 4, 3), images(lambda x, p: vgg_features(x, p, ())))


# ---------------------------------------------------------------- losses


def check_loss(ours, reference, *inputs):
    """Compare the loss and its gradient with respect to the first input."""
    loss, gradient = ours(*inputs)
    leaf = torch.tensor(inputs[0], requires_grad=True)
    expected = reference(leaf, *(torch.tensor(x) for x in inputs[1:]))
    expected.backward()
    assert_close(loss, expected, "loss")
    assert_close(gradient, leaf.grad, "gradient")


def test_mean_squared_error():
    check_loss(mean_squared_error, functional.mse_loss, uniform(2, 4, 5, 3), uniform(2, 4, 5, 3, seed=3))


@pytest.mark.parametrize("label", [0.0, 0.9, 1.0])
def test_binary_cross_entropy(label):
    logits = np.concatenate([20 * uniform(8, 1), [[0.0], [-800.0], [800.0]]])

    def reference(logits):
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    check_loss(lambda logits: binary_cross_entropy(logits, label), reference, logits)
    assert_close(sigmoid(logits), torch.sigmoid(torch.tensor(logits)))


@pytest.mark.parametrize("scale", [1, 1 / 12.75])
def test_feature_loss(scale):
    vgg = VGG19("block2_conv1").astype(np.float64)
    leaves = {name: torch.tensor(parameter.value) for name, parameter in vgg.parameters().items()}

    def reference(fake, real):
        features = [scale * vgg_features(x.permute(0, 3, 1, 2), leaves) for x in (fake, real)]
        return functional.mse_loss(*features)

    check_loss(FeatureLoss(vgg, scale), reference, uniform(2, 8, 8, 3), uniform(2, 8, 8, 3, seed=3))


def test_perceptual_loss():
    """MSE plus 0.01 times the cross-entropy through a small discriminator."""
    net = Sequential(Flatten(), Dense(12, 4, np.random.default_rng(0)), Tanh(), Dense(4, 1, np.random.default_rng(1)))
    p = {name: torch.tensor(q.value) for name, q in net.astype(np.float64).parameters().items()}

    ours = weighted_sum({"content": (1.0, mean_squared_error), "adversarial": (0.01, AdversarialLoss(net))})

    def reference(fake, real):
        logits = torch.tanh(fake.flatten(1) @ p["1.w"] + p["1.b"]) @ p["3.w"] + p["3.b"]
        adversarial = functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        return functional.mse_loss(fake, real) + 0.01 * adversarial

    check_loss(ours, reference, uniform(3, 2, 2, 3), uniform(3, 2, 2, 3, seed=3))


# ---------------------------------------------------------------- Adam


@pytest.mark.parametrize(
    ("rate", "beta1", "beta2", "epsilon"), [(1e-3, 0.9, 0.999, 1e-7), (1e-1, 0.5, 0.99, 1e-3), (1e-2, 0.9, 0.999, 1e-8)]
)
def test_adam_over_twenty_steps(rate, beta1, beta2, epsilon):
    ours = {"w": Parameter(uniform(4, 5)), "b": Parameter(uniform(5, seed=1))}
    leaves = {name: torch.tensor(parameter.value.copy(), requires_grad=True) for name, parameter in ours.items()}
    adam = Adam(ours, rate, beta1, beta2, epsilon)
    reference = torch.optim.Adam(leaves.values(), rate, (beta1, beta2), epsilon)
    for step in range(20):
        for name, parameter in ours.items():
            gradient = uniform(*parameter.value.shape, seed=100 + step) * 10.0 ** (step % 5 - 3)
            gradient.flat[0] = 0  # one element never gets a gradient
            parameter.grad += gradient
            leaves[name].grad = torch.tensor(gradient)
        adam.step()
        reference.step()
        for name, parameter in ours.items():
            assert_close(parameter.value, leaves[name], f"{name} after step {step + 1}")
