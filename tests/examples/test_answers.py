"""The answers to the exercises of examples/README.md; the environment variable ANSWERS names a file of your own."""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest

from tinysrgan.gradcheck import TOLERANCE, check_gradients, gradcheck_loss
from tinysrgan.layers import Conv2D, Parameter, PixelShuffle
from tinysrgan.ops.conv import naive

FILE = Path(os.environ.get("ANSWERS", Path(__file__).parents[2] / "examples" / "answers.py"))


@pytest.fixture(scope="module")
def answers():
    return runpy.run_path(str(FILE))


@pytest.fixture
def answer(answers):
    """A function that returns an answer by its name, or skips the test."""

    def answer(name):
        return answers[name] if name in answers else pytest.skip(f"{FILE.name} has no {name} yet")

    return answer


def image(*shape):
    return np.random.default_rng(3).uniform(-1, 1, shape)


def test_01_swish(answer):
    layer = answer("Swish")()
    np.testing.assert_allclose(layer.forward(np.array([-1.0, 0, 2])), [-0.26894142, 0, 1.76159416])
    check_gradients(answer("Swish")(), image(2, 3, 4))


def test_02_softmax(answer):
    layer = answer("Softmax")()
    np.testing.assert_allclose(layer.forward(image(5, 4)).sum(axis=-1), 1)
    np.testing.assert_allclose(layer.backward(np.ones((5, 4))), 0, atol=1e-15)
    check_gradients(layer, image(5, 4))


def test_03_layer_norm(answer):
    layer = answer("LayerNorm")()
    y = layer.forward(image(2, 4, 4, 8))
    assert np.abs(y.mean(axis=-1)).max() < 1e-12
    check_gradients(layer, image(2, 4, 4, 8))
    np.testing.assert_allclose(layer.eval().forward(image(2, 4, 4, 8)[:1]), y[:1])  # the batch does not matter


def test_04_convolution_by_shifts(answer):
    for shape in ((3, 3, 2, 5), (5, 1, 2, 3)):
        x, w = image(2, 6, 7, 2), image(*shape)
        np.testing.assert_allclose(answer("conv2d_by_shifts")(x, w), naive.conv2d(x, w), atol=1e-12)


def test_05_momentum(answer):
    p = Parameter(np.array([1.0]))
    optimizer = answer("Momentum")({"p": p}, learning_rate=0.1, momentum=0.5)
    for expected in (0.8, 0.5):  # gradient 2 twice: v is 2, then 3
        p.grad += 2
        optimizer.step()
        np.testing.assert_allclose(p.value, expected)
    assert not p.grad.any()


def test_06_hinge(answer):
    hinge = answer("hinge")
    assert hinge(np.array([[2.0], [0.0]]), 1)[0] == 0.5 and hinge(np.array([[-3.0]]), 0)[0] == 0
    for label in (0.0, 1.0):
        assert gradcheck_loss(lambda y, label=label: hinge(y, label), 3 * image(8, 1)) < TOLERANCE


def test_07_saturating(answer):
    saturating = answer("saturating")
    np.testing.assert_allclose(saturating(np.array([[0.0]]))[0], -np.log(2))
    loss, gradient = saturating(np.array([[1000.0], [-1000.0]], np.float32))
    assert loss == -500 and gradient.ravel().tolist() == [-0.5, 0]
    assert gradcheck_loss(saturating, 4 * image(6, 1)) < TOLERANCE


def test_08_charbonnier(answer):
    charbonnier, target = answer("charbonnier"), image(2, 3, 3, 3) ** 2
    np.testing.assert_allclose(charbonnier(target, target)[0], 1e-3)
    assert gradcheck_loss(lambda y: charbonnier(y, target), image(2, 3, 3, 3)) < TOLERANCE


def test_09_pixel_unshuffle(answer):
    layer, x = answer("PixelUnshuffle")(), image(2, 4, 6, 3)
    np.testing.assert_array_equal(PixelShuffle(2).forward(layer.forward(x)), x)
    check_gradients(layer, x)


def test_10_average_pool(answer):
    layer = answer("AveragePool")()
    np.testing.assert_allclose(layer.forward(np.arange(4.0).reshape(1, 2, 2, 1)), [[[[1.5]]]])
    check_gradients(layer, image(2, 4, 6, 3))


def test_11_absorb_rescale(answer):
    conv, x = Conv2D(3, 4, 3, rng=np.random.default_rng(0)).astype(np.float64).eval(), image(1, 5, 5, 3)
    conv.b.value = image(4)
    expected = 127.5 * conv.forward(x) - 3
    answer("absorb_rescale")(conv, 127.5, -3.0)
    np.testing.assert_allclose(conv.forward(x), expected)


def test_12_smallest_tile(answer):
    assert [answer("smallest_tile")(need) for need in (1, 11, 50)] == [8, 88, 400]


def test_13_whole_variance(answer):
    slices = np.split(image(1000) + np.linspace(0, 5, 1000), [100, 350])
    found = answer("whole_variance")([len(s) for s in slices], [s.mean() for s in slices], [s.var() for s in slices])
    np.testing.assert_allclose(found, np.concatenate(slices).var(), rtol=1e-12)
