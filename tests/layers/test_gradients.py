"""Every layer, every loss and whole nets: the gradient is the slope."""

import numpy as np
import pytest

from tinysrgan import layers, losses
from tinysrgan.gradcheck import GradientError, check_gradients, gradcheck, gradcheck_loss, main
from tinysrgan.layers import BatchNorm
from tinysrgan.models import VGG19, Discriminator, Generator
from tinysrgan.registry import LAYERS, LOSS_SHAPE, LOSSES, example, weighted_sum

TOLERANCE = 1e-6


def uniform(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, shape)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    check_gradients(*example(name))


@pytest.mark.parametrize("sides", [(6, 8), (7, 5), (2, 3), (1, 1)])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 3), (6, 2), (3, 8)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_convolution(size, stride, inputs, outputs, sides):
    rng = np.random.default_rng(3)
    check_gradients(layers.Conv2D(inputs, outputs, size, stride, rng=rng), uniform(2, *sides, inputs))


@pytest.mark.parametrize(
    ("upscale", "output", "scale"), [("shuffle", "linear", 4), ("nearest", "linear", 2), ("shuffle", "tanh", 2)]
)
def test_generator(upscale, output, scale):
    generator = Generator(2, 3, scale, upscale, output, seed=1)
    errors = gradcheck(generator, uniform(2, 4, 3, 3))
    assert errors.keys() == {"x", *generator.parameters()}
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("size", [32, 20])
def test_discriminator(size):
    discriminator = Discriminator(size, 4, 8, seed=1)
    errors = gradcheck(discriminator, uniform(3, size, size, 3))
    assert errors.keys() == {"x", *discriminator.parameters()}
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("cut", ["block1_conv1", "block2_conv1", "block3_pool"])
def test_vgg19_with_its_preprocessing(cut):
    errors = gradcheck(VGG19(cut), uniform(1, 16, 12, 3))
    assert errors.keys() == {"x"}  # it is frozen
    assert errors["x"] < TOLERANCE


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name):
    loss, target = LOSSES[name](), uniform(*LOSS_SHAPE)
    assert gradcheck_loss(lambda y: loss(y, target), -0.9 * target**2) < TOLERANCE


def test_every_loss_has_an_example():
    public = {name for name, loss in vars(losses).items() if getattr(loss, "__module__", "") == losses.__name__}
    assert public - {"sigmoid", "ImageLoss"} == LOSSES.keys()


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


def test_a_wrong_gradient_is_named():
    class Wrong(BatchNorm):
        def backward(self, dy):
            dx = super().backward(dy)
            self.beta.grad *= 2
            return dx

    with pytest.raises(GradientError, match="beta"):
        check_gradients(Wrong(3), uniform(2, 4, 4, 3))


@pytest.mark.parametrize("kind", [layers.ReLU, layers.LeakyReLU, lambda: layers.PReLU(3), layers.MaxPool])
def test_kinks_close_by_neither_alarm_nor_hide_a_fault(kind, monkeypatch):
    """Many numbers within a millionth of zero, and pairs as close to each other."""
    x = np.round(uniform(2, 8, 8, 3), 1) + 1e-6 * np.random.default_rng(6).uniform(-1, 1, (2, 8, 8, 3))
    check_gradients(kind(), x)
    layer = kind()
    right = layer.backward
    monkeypatch.setattr(layer, "backward", lambda dy: right(dy) * (1 + 1e-5))
    with pytest.raises(GradientError, match="of x"):
        check_gradients(layer, x)


@pytest.mark.parametrize("kind", [layers.ReLU, layers.LeakyReLU, lambda: layers.PReLU(3), layers.MaxPool])
def test_a_kink_itself_is_called_one_and_not_a_wrong_gradient(kind):
    """Zeros, and equal numbers in a window; the gradient of one side is as right as the other's."""
    x = uniform(2, 8, 8, 3)
    x[0, :2, :2] = 0
    assert gradcheck(kind(), x)["x"] == np.inf
    with pytest.raises(GradientError, match="kink at these values of x, ") as caught:
        check_gradients(kind(), x)
    assert "wrong" not in str(caught.value)


def test_a_single_kink_in_a_large_and_curved_function_is_found():
    def loss(y):
        return np.exp(y).sum() + abs(y[0, 0]), np.exp(y) + np.sign(y) * (np.indices(y.shape).sum(0) == 0)

    y = uniform(60, 60)
    assert gradcheck_loss(loss, y) < TOLERANCE
    y[0, 0] = 0
    assert gradcheck_loss(loss, y) == np.inf


def test_a_wrong_gradient_of_a_curved_function_is_no_kink():
    for curve in (1, 1e3, 1e6):
        assert TOLERANCE < gradcheck_loss(lambda y: ((curve * y**2).sum(), curve * 2.001 * y), uniform(9)) < 2  # noqa: B023


def test_kink_and_wrong_gradient_are_told_apart():
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
    """The sum of normalised numbers never changes but for rounding, which short steps blow up."""

    def flat(y):
        return ((y - y.mean()) / y.std()).sum() + 0.4, 0 * y

    seeds = [np.random.default_rng(seed) for seed in range(100)]
    assert max(gradcheck_loss(flat, rng.uniform(-1, 1, 50), rng) for rng in seeds) < TOLERANCE


def test_why_the_weights_of_the_outputs_are_random():
    """With ones instead, batch-norm's loss never changes, and a backward that returns zeros would seem right."""
    norm, x = BatchNorm(3).astype(np.float64), uniform(2, 4, 4, 3)
    assert norm.forward(x).sum() == pytest.approx(norm.forward(x**3).sum(), abs=1e-9)


def test_the_command_prints_every_example_and_finds_a_fault(capsys, monkeypatch):
    few = {name: LAYERS[name] for name in ("Dense", "BatchNorm")}
    monkeypatch.setattr("tinysrgan.gradcheck.LAYERS", few)
    monkeypatch.setattr("tinysrgan.gradcheck.NETS", {})
    assert main() == 0
    names = [line[:32].strip() for line in capsys.readouterr().out.splitlines()]
    assert names[1:-2] == [*few, *LOSSES]
    right = BatchNorm.backward
    monkeypatch.setattr(BatchNorm, "backward", lambda self, dy: right(self, dy) * 1.01)
    assert main() == 1
    wrong = [line[:32].strip() for line in capsys.readouterr().out.splitlines() if "WRONG" in line]
    assert wrong[0] == "BatchNorm" and "Dense" not in wrong
