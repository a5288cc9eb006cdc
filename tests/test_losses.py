"""The losses compared with values computed by hand. tests/layers/test_gradients.py checks their gradients."""

import math
import warnings

import numpy as np
import pytest

from tinysrgan.layers import Dense, Flatten, Sequential, Tanh
from tinysrgan.losses import (
    AdversarialLoss,
    FeatureLoss,
    binary_cross_entropy,
    mean_squared_error,
    perceptual_loss,
    pixel_cross_entropy,
    sigmoid,
)
from tinysrgan.models import VGG19, Discriminator


def images(n=2, size=16, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).uniform(-1, 1, (n, size, size, 3)).astype(dtype)


# ---------------------------------------------------------------- mean squared error


def test_mean_squared_error():
    """The differences 1, 0, -2, 3 have the squares 1, 0, 4, 9: a mean of 14 / 4. The gradient is 2 / 4 of each."""
    loss, gradient = mean_squared_error(np.array([[2.0, 5.0], [1.0, 3.0]]), np.array([[1.0, 5.0], [3.0, 0.0]]))
    assert loss == 3.5
    assert gradient.tolist() == [[0.5, 0], [-1, 1.5]]


def test_mean_squared_error_averages_over_the_batch():
    y, target = images(1), images(1, seed=1)
    once = mean_squared_error(y, target)[0]
    twice = mean_squared_error(np.concatenate([y, y]), np.concatenate([target, target]))[0]
    assert once == pytest.approx(twice)


# ---------------------------------------------------------------- cross-entropy of pixels


def test_pixel_cross_entropy_of_known_probabilities():
    """y = 0.5 is the probability 3/4 of white. The loss is log 4/3 for white, log 4 for black, their mean for grey."""
    loss, gradient = pixel_cross_entropy(np.array([0.5, 0.5, 0.5, 0.0]), np.array([1.0, -1.0, 0.0, 0.0]))
    expected = [math.log(4 / 3), math.log(4), (math.log(4 / 3) + math.log(4)) / 2, math.log(2)]
    assert loss == pytest.approx(np.mean(expected))
    np.testing.assert_allclose(gradient, np.array([-0.5, 1.5, 0.5, 0]) / 0.75 / 4)


def test_gradient_of_pixel_cross_entropy_through_tanh_is_the_error():
    tanh, z, target = Tanh(), np.random.default_rng(0).uniform(-4, 4, (2, 3, 3, 3)), images(2, 3)
    y = tanh.forward(z)
    np.testing.assert_allclose(tanh.backward(pixel_cross_entropy(y, target)[1]), (y - target) / y.size, atol=1e-15)


def test_pixel_cross_entropy_of_certain_and_wrong_pixels_is_finite():
    y, target = np.array([1, -1, 1, -1], np.float32), np.array([-1, 1, 1, -1], np.float32)
    loss, gradient = pixel_cross_entropy(y, target)
    assert loss == pytest.approx(-math.log(1e-7) / 2, rel=1e-3) and loss.dtype == np.float32
    assert np.isfinite(gradient).all() and gradient.dtype == np.float32
    assert gradient[0] > 0 > gradient[1] and not gradient[2:].any()


# ---------------------------------------------------------------- binary cross-entropy


def test_binary_cross_entropy_of_logit_0_is_log_2():
    for label, gradient in ((1, -0.5), (0, 0.5)):
        loss, d_logits = binary_cross_entropy(np.zeros((1, 1)), label)
        assert loss == pytest.approx(math.log(2))
        assert d_logits.tolist() == [[gradient]]


def test_binary_cross_entropy_of_known_probabilities():
    """The logits log 3 and -log 3 are the probabilities 3/4 and 1/4."""
    logits = np.array([[math.log(3)], [-math.log(3)]])
    loss, gradient = binary_cross_entropy(logits, 1)
    assert loss == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)
    np.testing.assert_allclose(gradient, [[-1 / 8], [-3 / 8]])
    loss, gradient = binary_cross_entropy(logits, 0)
    assert loss == pytest.approx(-(math.log(1 / 4) + math.log(3 / 4)) / 2)
    np.testing.assert_allclose(gradient, [[3 / 8], [1 / 8]])


def test_binary_cross_entropy_with_a_smoothed_label_is_least_at_that_probability():
    logit = math.log(0.9 / 0.1)
    losses = [binary_cross_entropy(np.array([[logit + step]]), 0.9)[0] for step in (-0.1, 0, 0.1)]
    assert losses[1] < min(losses[0], losses[2])
    assert binary_cross_entropy(np.array([[logit]]), 0.9)[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("logit", "label", "loss", "gradient"),
    [(1e4, 1, 0, 0), (1e4, 0, 1e4, 1), (-1e4, 1, 1e4, -1), (-1e4, 0, 0, 0), (100, 0, 100, 1), (-100, 1, 100, -1)],
)
def test_binary_cross_entropy_of_large_logits_is_finite(logit, label, loss, gradient, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = binary_cross_entropy(np.full((1, 1), logit, dtype), label)
    assert [float(part.squeeze()) for part in found] == pytest.approx([loss, gradient], abs=1e-30)
    assert [part.dtype for part in found] == [dtype, dtype]


def test_sigmoid():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = sigmoid(np.array([-1e4, -math.log(3), 0, math.log(3), 1e4]))
    np.testing.assert_allclose(p, [0, 0.25, 0.5, 0.75, 1], atol=1e-15)


# ---------------------------------------------------------------- features


@pytest.fixture(scope="module")
def vgg():
    return VGG19("block2_conv1").astype(np.float64)


def test_feature_loss_is_the_mean_squared_error_of_features(vgg):
    fake, real = images(), images(seed=1)
    expected = np.mean((vgg.eval().forward(fake) - vgg.eval().forward(real)) ** 2)
    assert FeatureLoss(vgg)(fake, real)[0] == pytest.approx(expected)
    assert FeatureLoss(vgg, 1 / 12.75)(fake, real)[0] == pytest.approx(expected / 12.75**2)


def test_feature_scale_applies_to_the_gradient(vgg):
    fake, real = images(), images(seed=1)
    (_, gradient), (_, scaled) = FeatureLoss(vgg)(fake, real), FeatureLoss(vgg, 1 / 12.75)(fake, real)
    assert np.abs(gradient).max() > 0
    np.testing.assert_allclose(scaled, gradient / 12.75**2, rtol=1e-10, atol=1e-15)


def test_feature_loss_of_equal_images_is_zero(vgg):
    loss, gradient = FeatureLoss(vgg)(images(), images())
    assert loss == 0
    assert not gradient.any()


def test_feature_loss_does_not_train_vgg(vgg):
    before = {name: parameter.value.copy() for name, parameter in vgg.parameters().items()}
    FeatureLoss(vgg)(images(), images(seed=1))
    for name, parameter in vgg.parameters().items():
        np.testing.assert_array_equal(parameter.value, before[name])
        assert not parameter.grad.any(), name


# ---------------------------------------------------------------- the generator's loss


def test_perceptual_loss_by_hand():
    """D's logit is twice the sum of the image, which is 0 here. The loss is log 2; its gradient is -1/2 times 2."""
    discriminator = Sequential(Flatten(), Dense(4, 1)).astype(np.float64)
    discriminator["1"].w.value[:] = 2
    fake = np.array([1.0, -1.0, 2.0, -2.0]).reshape(1, 1, 1, 4)
    terms = {"content": (1.0, mean_squared_error), "adversarial": (0.1, AdversarialLoss(discriminator))}
    parts, gradient = perceptual_loss(fake, np.zeros_like(fake), terms)
    assert parts == pytest.approx({"content": 10 / 4, "adversarial": math.log(2)})
    np.testing.assert_allclose(gradient.ravel(), [0.5 - 0.1, -0.5 - 0.1, 1 - 0.1, -1 - 0.1])


def test_perceptual_loss_returns_every_term_by_name_and_weights_its_gradient():
    fake, real = images(), images(seed=1)
    total_variation = lambda fake, real: (np.asarray(7.0), np.ones_like(fake))  # noqa: E731
    parts, gradient = perceptual_loss(fake, real, {"content": (1.0, mean_squared_error), "tv": (0.25, total_variation)})
    loss, d_content = mean_squared_error(fake, real)
    assert parts == {"content": loss, "tv": 7}
    np.testing.assert_array_equal(gradient, d_content + 0.25)


def test_step_along_the_gradient_lowers_the_adversarial_loss():
    discriminator = Discriminator(16, 2, 3, seed=0).astype(np.float64)
    fake = images()
    loss, gradient = AdversarialLoss(discriminator)(fake, fake)
    after, _ = AdversarialLoss(discriminator)(fake - 1e-3 * gradient / np.abs(gradient).max(), fake)
    assert after < loss


def test_adversarial_loss_does_not_change_the_discriminator():
    """Its tensors, gradients and frozen flags stay the same."""
    discriminator = Discriminator(16, 2, 3, seed=0).astype(np.float64)
    discriminator["head"].freeze()
    logits = discriminator.forward(images(seed=1))
    discriminator.backward(binary_cross_entropy(logits, 1)[1])  # these gradients must stay
    values = {name: tensor.value.copy() for name, tensor in discriminator.tensors().items()}
    gradients = {name: parameter.grad.copy() for name, parameter in discriminator.parameters().items()}
    flags = {layer.path: layer.frozen for layer in discriminator.layers()}
    assert gradients["logit.w"].any()
    assert set(flags.values()) == {True, False}

    _, gradient = AdversarialLoss(discriminator)(images(), images(seed=1))

    assert gradient.any()
    for name, tensor in discriminator.tensors().items():
        np.testing.assert_array_equal(tensor.value, values[name], err_msg=name)
    for name, parameter in discriminator.parameters().items():
        np.testing.assert_array_equal(parameter.grad, gradients[name], err_msg=name)
    assert {layer.path: layer.frozen for layer in discriminator.layers()} == flags
    assert all(layer.training for layer in discriminator.layers())


def test_losses_do_not_write_into_the_images():
    fake, real = images(dtype=np.float32), images(seed=1, dtype=np.float32)
    for x in (fake, real):
        x.flags.writeable = False
    discriminator = Discriminator(16, 2, 3, seed=0)
    for content in (mean_squared_error, FeatureLoss(VGG19("block1_conv1"))):
        terms = {"content": (1.0, content), "adversarial": (1e-3, AdversarialLoss(discriminator))}
        parts, gradient = perceptual_loss(fake, real, terms)
        assert gradient.dtype == np.float32
        assert {part.dtype for part in parts.values()} == {np.dtype(np.float32)}
