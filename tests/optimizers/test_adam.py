"""Adam, in numbers worked by hand. tests/layers/test_torch_layers.py has it beside PyTorch's for twenty steps."""

import numpy as np
import pytest

from tinysrgan.layers import Dense, Parameter
from tinysrgan.optimizers.adam import Adam


def parameter(*values, gradient=None):
    result = Parameter(np.array(values, np.float64))
    if gradient is not None:
        result.grad[...] = gradient
    return result


def test_the_first_step_is_the_rate_whatever_the_gradient():
    """Both moments are (1 - beta) times g or g^2 and corrected by just that: g / sqrt(g^2), the sign of g."""
    w = parameter(1, 2, 3, 4, gradient=[1e-3, -1e-3, 50, 0])
    Adam({"w": w}, 0.1, epsilon=1e-30).step()
    np.testing.assert_allclose(w.value, [0.9, 2.1, 2.9, 4], rtol=1e-12)


def test_epsilon_slows_down_gradients_that_are_as_small():
    """Added to the corrected square root: a gradient of epsilon goes half of the way."""
    w = parameter(1, gradient=[0.25])
    Adam({"w": w}, 0.1, epsilon=0.25).step()
    np.testing.assert_allclose(w.value, [0.95], rtol=1e-12)


def test_three_steps_by_hand():
    """Rate 1, beta1 = 1/2, beta2 = 3/4, gradients 2, -1 and 3.

    1. m = 1, corrected by 1 - 1/2 is 2; v = 1, corrected by 1 - 3/4 is 4: a step of 2 / sqrt(4) = 1.
    2. m = 1/2 - 1/2 = 0: no step; v = 3/4 + 1/4 = 1.
    3. m = 3/2, corrected by 1 - 1/8; v = 3/4 + 9/4 = 3, corrected by 1 - 27/64.
    """
    w = parameter(10)
    adam = Adam({"w": w}, 1.0, 0.5, 0.75, 1e-30)
    for gradient, value in ((2, 9), (-1, 9), (3, 9 - (3 / 2 / (7 / 8)) / (3 / (37 / 64)) ** 0.5)):
        w.grad[:] = gradient
        adam.step()
        np.testing.assert_allclose(w.value, [value], rtol=1e-12)
    assert adam.steps == 3
    assert adam.m["w"].tolist() == [1.5]
    assert adam.v["w"].tolist() == [3]


def test_the_defaults_are_those_of_keras():
    adam = Adam({})
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (1e-3, 0.9, 0.999, 1e-7)


def test_a_step_sets_the_gradients_to_zero():
    parameters = {"w": parameter(1, 2, gradient=[3, 4]), "b": parameter(1, gradient=[5])}
    Adam(parameters).step()
    assert not any(p.grad.any() for p in parameters.values())


def test_values_and_gradients_change_in_place():
    """Layers and the optimizer hold the same arrays, so neither needs to tell the other."""
    layer = Dense(3, 2)
    arrays = {name: (p.value, p.grad) for name, p in layer.parameters().items()}
    before = {name: p.value.copy() for name, p in layer.parameters().items()}
    adam = Adam(layer.parameters())
    y = layer.forward(np.ones((1, 3), np.float32))
    layer.backward(np.ones_like(y))
    adam.step()
    for name, p in layer.parameters().items():
        assert p.value is arrays[name][0]
        assert p.grad is arrays[name][1]
        assert (p.value != before[name]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(dtype):
    w = Parameter(np.ones(3, dtype))
    adam = Adam({"w": w})
    w.grad += 1
    adam.step()
    assert {x.dtype for x in (w.value, w.grad, adam.m["w"], adam.v["w"])} == {np.dtype(dtype)}


def test_the_rate_may_change_between_steps():
    w = parameter(0)
    adam = Adam({"w": w}, 1.0, epsilon=1e-30)
    for rate, value in ((1.0, -1), (0.5, -1.5), (0.0, -1.5)):
        adam.learning_rate = rate
        w.grad[:] = 7
        adam.step()
        np.testing.assert_allclose(w.value, [value], rtol=1e-12)


def test_any_shape_and_any_layout_in_memory():
    """The transposed array takes the same steps as its copy."""
    values = np.random.default_rng(0).standard_normal((4, 3, 2))
    straight, turned = Parameter(values.copy()), Parameter(values.T.copy().T)
    assert not turned.value.flags.c_contiguous
    adam = Adam({"straight": straight, "turned": turned, "scalar": Parameter(np.ones(()))})
    for step in range(3):
        for p in (straight, turned):
            p.grad += np.random.default_rng(step).standard_normal(values.shape)
        adam.step()
    np.testing.assert_array_equal(straight.value, turned.value)
    assert (straight.value != values).all()


def test_it_finds_the_bottom_of_a_valley():
    """f = (a - 3)^2 + 100 (b + 1)^2: the steep side and the flat one take about the same number of steps."""
    w = parameter(0, 0)
    adam = Adam({"w": w}, 0.05)
    for _ in range(600):
        w.grad += 2 * np.array([1, 100]) * (w.value - [3, -1])
        adam.step()
    np.testing.assert_allclose(w.value, [3, -1], atol=1e-3)
