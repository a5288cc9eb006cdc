"""Adam compared with steps computed by hand. tests/parity/test_torch_layers.py compares it with PyTorch's."""

import numpy as np
import pytest

from tinysrgan.layers import Dense, Parameter
from tinysrgan.optimizers.adam import Adam


def parameter(*values, gradient=None):
    result = Parameter(np.array(values, np.float64))
    if gradient is not None:
        result.grad[...] = gradient
    return result


def test_first_step_is_the_learning_rate_times_the_sign_of_the_gradient():
    """The moments are (1 - beta) g and (1 - beta) g^2. Corrected, they give g / sqrt(g^2), the sign of g."""
    w = parameter(1, 2, 3, 4, gradient=[1e-3, -1e-3, 50, 0])
    Adam({"w": w}, 0.1, epsilon=1e-30).step()
    np.testing.assert_allclose(w.value, [0.9, 2.1, 2.9, 4], rtol=1e-12)


def test_epsilon_shortens_the_steps_of_small_gradients():
    """Epsilon is added to the corrected root, so a gradient of epsilon gives half a step."""
    w = parameter(1, gradient=[0.25])
    Adam({"w": w}, 0.1, epsilon=0.25).step()
    np.testing.assert_allclose(w.value, [0.95], rtol=1e-12)


def test_three_steps_computed_by_hand():
    """Learning rate 1, beta1 = 1/2, beta2 = 3/4, gradients 2, -1 and 3.

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


def test_defaults_are_those_of_keras():
    adam = Adam({})
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (1e-3, 0.9, 0.999, 1e-7)


def test_step_sets_the_gradients_to_zero():
    parameters = {"w": parameter(1, 2, gradient=[3, 4]), "b": parameter(1, gradient=[5])}
    Adam(parameters).step()
    assert not any(p.grad.any() for p in parameters.values())


def test_step_updates_values_and_gradients_in_place():
    """The layers and the optimizer share these arrays."""
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
def test_step_keeps_the_dtype(dtype):
    w = Parameter(np.ones(3, dtype))
    adam = Adam({"w": w})
    w.grad += 1
    adam.step()
    assert {x.dtype for x in (w.value, w.grad, adam.m["w"], adam.v["w"])} == {np.dtype(dtype)}


def test_learning_rate_may_change_between_steps():
    w = parameter(0)
    adam = Adam({"w": w}, 1.0, epsilon=1e-30)
    for rate, value in ((1.0, -1), (0.5, -1.5), (0.0, -1.5)):
        adam.learning_rate = rate
        w.grad[:] = 7
        adam.step()
        np.testing.assert_allclose(w.value, [value], rtol=1e-12)


def test_step_does_not_depend_on_memory_layout():
    """A transposed array takes the same steps as its contiguous copy."""
    values = np.random.default_rng(0).standard_normal((4, 3, 2))
    contiguous, transposed = Parameter(values.copy()), Parameter(values.T.copy().T)
    assert not transposed.value.flags.c_contiguous
    adam = Adam({"contiguous": contiguous, "transposed": transposed, "scalar": Parameter(np.ones(()))})
    for step in range(3):
        for p in (contiguous, transposed):
            p.grad += np.random.default_rng(step).standard_normal(values.shape)
        adam.step()
    np.testing.assert_array_equal(contiguous.value, transposed.value)
    assert (contiguous.value != values).all()


def test_adam_minimizes_a_badly_scaled_function():
    """f = (a - 3)^2 + 100 (b + 1)^2. Both coordinates converge in the same number of steps."""
    w = parameter(0, 0)
    adam = Adam({"w": w}, 0.05)
    for _ in range(600):
        w.grad += 2 * np.array([1, 100]) * (w.value - [3, -1])
        adam.step()
    np.testing.assert_allclose(w.value, [3, -1], atol=1e-3)
