"""The gradients of every layer, every loss and whole nets, compared with finite differences."""

import re

import numpy as np
import pytest

from tinysrgan import layers, losses
from tinysrgan.gradcheck import GradientError, check_gradients, gradcheck, gradcheck_loss, main
from tinysrgan.gradcheck.registry import LAYERS, LOSS_SHAPE, LOSSES, example, weighted_sum
from tinysrgan.layers import BatchNorm, PReLU
from tinysrgan.models import VGG19, Discriminator, Generator

TOLERANCE = 1e-6


def uniform(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, shape)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    check_gradients(*example(name))


@pytest.mark.parametrize("sides", [(6, 8), (7, 5), (2, 3), (1, 1)])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 3), (6, 2), (3, 8)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
def test_convolution(kernel_size, stride, in_channels, out_channels, sides):
    rng = np.random.default_rng(3)
    layer = layers.Conv2D(in_channels, out_channels, kernel_size, stride, rng=rng)
    check_gradients(layer, uniform(2, *sides, in_channels))


@pytest.mark.parametrize(
    ("upscale", "output", "scale"), [("shuffle", "linear", 4), ("nearest", "linear", 2), ("shuffle", "tanh", 2)]
)
def test_generator(upscale, output, scale):
    generator = Generator(1, 3, scale, upscale, output, seed=1)
    errors = gradcheck(generator, uniform(2, 4, 3, 3))
    assert errors.keys() == {"x", *generator.parameters()}
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("size", [16, 20])
def test_discriminator(size):
    discriminator = Discriminator(size, 2, 4, seed=1)
    errors = gradcheck(discriminator, uniform(3, size, size, 3))
    assert errors.keys() == {"x", *discriminator.parameters()}
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("cut", ["block1_conv1", "block2_pool", "block3_conv1"])
def test_vgg19_with_its_preprocessing(cut):
    errors = gradcheck(VGG19(cut), uniform(1, 8, 8, 3))
    assert errors.keys() == {"x"}  # VGG19 is frozen
    assert errors["x"] < TOLERANCE


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name):
    loss, target = LOSSES[name](), uniform(*LOSS_SHAPE)
    assert gradcheck_loss(lambda y: loss(y, target), -0.9 * target**2) < TOLERANCE


def test_every_loss_has_an_example():
    public = {name for name, loss in vars(losses).items() if getattr(loss, "__module__", "") == losses.__name__}
    assert public - {"mean_sigmoid"} == LOSSES.keys()  # which is logged, without a gradient


@pytest.mark.parametrize("label", [0.0, 0.9, 1.0])
def test_binary_cross_entropy(label):
    assert gradcheck_loss(lambda y: losses.binary_cross_entropy(y, label), 4 * uniform(6, 1)) < TOLERANCE


@pytest.mark.parametrize("weight", [1e-3, 10.0])
def test_perceptual_loss(weight):
    discriminator = Discriminator(16, 4, 8, seed=3).astype(np.float64)
    terms = {
        "content": (1.0, losses.mean_squared_error),
        "adversarial": (weight, losses.AdversarialLoss(discriminator)),
    }
    loss, target = weighted_sum(terms), uniform(3, 16, 16, 3)
    assert gradcheck_loss(lambda y: loss(y, target), -(target**2)) < TOLERANCE


def test_error_names_the_tensor_with_the_wrong_gradient():
    class Wrong(BatchNorm):
        def backward(self, dy):
            dx = super().backward(dy)
            self.beta.grad *= 2
            return dx

    with pytest.raises(GradientError, match="beta"):
        check_gradients(Wrong(3), uniform(2, 4, 4, 3))


@pytest.mark.parametrize("kind", [layers.ReLU, layers.LeakyReLU, lambda: layers.PReLU(3), layers.MaxPool])
def test_kinks_nearby_neither_fail_a_right_gradient_nor_hide_a_wrong_one(kind, monkeypatch):
    """Many elements lie within 1e-6 of zero or of each other."""
    x = np.round(uniform(2, 8, 8, 3), 1) + 1e-6 * np.random.default_rng(6).uniform(-1, 1, (2, 8, 8, 3))
    check_gradients(kind(), x)
    layer = kind()
    right = layer.backward
    monkeypatch.setattr(layer, "backward", lambda dy: right(dy) * (1 + 1e-5))
    with pytest.raises(GradientError, match="of x"):
        check_gradients(layer, x)


@pytest.mark.parametrize("kind", [layers.ReLU, layers.LeakyReLU, lambda: layers.PReLU(3), layers.MaxPool])
def test_input_on_a_kink_is_reported_as_a_kink_not_as_a_wrong_gradient(kind):
    """Some elements are zero, and equal within a pooling window. The one-sided gradients differ; neither is wrong."""
    x = uniform(2, 8, 8, 3)
    x[0, :2, :2] = 0
    assert gradcheck(kind(), x)["x"] == np.inf
    with pytest.raises(GradientError, match="kink at these values of x, ") as caught:
        check_gradients(kind(), x)
    assert "wrong" not in str(caught.value)


def test_one_kink_in_a_large_curved_function_is_found():
    def loss(y):
        return np.exp(y).sum() + abs(y[0, 0]), np.exp(y) + np.sign(y) * (np.indices(y.shape).sum(0) == 0)

    y = uniform(60, 60)
    assert gradcheck_loss(loss, y) < TOLERANCE
    y[0, 0] = 0
    assert gradcheck_loss(loss, y) == np.inf


def test_wrong_gradient_of_a_curved_function_is_not_reported_as_a_kink():
    for curve in (1, 1e3, 1e6):
        assert TOLERANCE < gradcheck_loss(lambda y: ((curve * y**2).sum(), curve * 2.001 * y), uniform(9)) < 2  # noqa: B023


def test_error_reports_a_kink_and_a_wrong_gradient_separately():
    class Wrong(layers.PReLU):
        def backward(self, dy):
            dx = super().backward(dy)
            self.slope.grad *= 2
            return dx

    x = uniform(2, 4, 4, 3)
    x[0, 0] = 0
    with pytest.raises(GradientError, match=r"wrong gradient of slope \(error .*\); kink at these values of x, "):
        check_gradients(Wrong(3), x)


def test_rounding_is_not_taken_for_a_slope():
    """The sum of normalized elements changes only by rounding, which short steps amplify."""

    def flat(y):
        return ((y - y.mean()) / y.std()).sum() + 0.4, 0 * y

    seeds = [np.random.default_rng(seed) for seed in range(100)]
    assert max(gradcheck_loss(flat, rng.uniform(-1, 1, 50), rng) for rng in seeds) < TOLERANCE


def test_a_cotangent_of_ones_would_hide_faults_in_batch_norm():
    """The sum of batch-norm's outputs does not depend on x, so a backward that returns zeros would pass."""
    norm, x = BatchNorm(3).astype(np.float64), uniform(2, 4, 4, 3)
    assert norm.forward(x).sum() == pytest.approx(norm.forward(x**3).sum(), abs=1e-9)


def test_command_prints_every_example_and_finds_a_fault(capsys, monkeypatch):
    few = {name: LAYERS[name] for name in ("Dense", "BatchNorm")}
    monkeypatch.setattr("tinysrgan.gradcheck.LAYERS", few)
    monkeypatch.setattr("tinysrgan.gradcheck.NETS", {})
    monkeypatch.setattr("tinysrgan.gradcheck.LOSSES", {"mean_squared_error": LOSSES["mean_squared_error"]})
    assert main() == 0
    names = [line[:32].strip() for line in capsys.readouterr().out.splitlines()]
    assert names[1:-2] == [*few, "mean_squared_error"]
    right = BatchNorm.backward
    monkeypatch.setattr(BatchNorm, "backward", lambda self, dy: right(self, dy) * 1.01)
    assert main() == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if "WRONG" in line]
    assert len(wrong) == 1 and re.fullmatch(r"BatchNorm +\d\.\de-0[23]   x   WRONG", wrong[0])


def test_table_names_the_gradient_that_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr("tinysrgan.gradcheck.LAYERS", {"PReLU": LAYERS["PReLU"]})
    monkeypatch.setattr("tinysrgan.gradcheck.NETS", {})
    monkeypatch.setattr("tinysrgan.gradcheck.LOSSES", {})
    right = PReLU.backward

    def wrong_slope(self, dy):
        dx = right(self, dy)
        self.slope.grad *= 0.5
        return dx

    monkeypatch.setattr(PReLU, "backward", wrong_slope)
    assert main() == 1
    assert re.search(r"^PReLU +\S+ +slope   WRONG$", capsys.readouterr().out, re.MULTILINE)
