"""The rules that every layer keeps (layers/base.py), each tried on all of them."""

import numpy as np
import pytest
from cases import CASES

from tinysrgan.layers import BatchNorm, Conv2D, Layer, Sequential, frozen
from tinysrgan.models import Discriminator, Generator

every_layer = pytest.mark.parametrize("case", CASES)


def fresh(case, dtype=np.float64) -> tuple[Layer, np.ndarray]:
    make, x = CASES[case]
    return make().astype(dtype).label("net.7"), x.astype(dtype)


def gradients(layer) -> dict[str, np.ndarray]:
    return {path: parameter.grad.copy() for path, parameter in layer.parameters().items()}


@every_layer
def test_backward_adds_to_the_gradients(case):
    layer, x = fresh(case)
    dy = np.cos(layer.forward(x))
    layer.backward(dy)
    once = gradients(layer)
    layer.forward(x)
    layer.backward(dy)
    for path, twice in gradients(layer).items():
        np.testing.assert_allclose(twice, 2 * once[path], err_msg=path)


@every_layer
def test_arguments_are_not_written_to(case):
    layer, x = fresh(case)
    x = x.copy()
    x.flags.writeable = False
    dy = np.cos(layer.forward(x))
    dy.flags.writeable = False
    layer.backward(dy)


@every_layer
def test_backward_needs_a_forward_in_train_mode_each_time(case):
    layer, x = fresh(case)
    y = layer.forward(x)
    layer.backward(y)
    with pytest.raises(RuntimeError, match=r"'net\.7.*forward\(\) in train mode"):
        layer.backward(y)
    layer.eval().forward(x)
    with pytest.raises(RuntimeError, match=r"'net\.7"):
        layer.backward(y)


@every_layer
def test_eval_keeps_nothing(case):
    layer, x = fresh(case)
    layer.forward(x)
    layer.eval().forward(x)
    assert all(each._kept is None for each in layer.layers())


@every_layer
def test_a_frozen_layer_passes_the_gradient_on_and_stays_as_it_is(case):
    layer, x = fresh(case)
    dy = np.cos(layer.forward(x))
    dx = layer.backward(dy)
    before = {path: tensor.value.copy() for path, tensor in layer.tensors().items()}
    layer.zero_grad()
    with frozen(layer):
        layer.forward(x)
        np.testing.assert_array_equal(layer.backward(dy), dx)
    assert not any(gradient.any() for gradient in gradients(layer).values())
    for path, tensor in layer.tensors().items():
        np.testing.assert_array_equal(tensor.value, before[path], err_msg=path)
    layer.forward(x)
    layer.backward(dy)
    assert all(each.frozen is False for each in layer.layers())


def test_freezing_for_a_while_leaves_what_was_frozen_frozen():
    net = Sequential(a=Conv2D(3, 3, 3).freeze(), b=Conv2D(3, 3, 3))
    with pytest.raises(ZeroDivisionError), frozen(net):
        assert net["b"].frozen
        raise ZeroDivisionError
    assert net["a"].frozen and not net["b"].frozen


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_layer
def test_the_dtype_stays(case, dtype):
    layer, x = fresh(case, dtype)
    y = layer.forward(x)
    dx = layer.backward(y)
    assert y.dtype == dx.dtype == dtype
    assert {gradient.dtype for gradient in gradients(layer).values()} <= {np.dtype(dtype)}
    assert layer.eval().forward(x).dtype == dtype
    assert {tensor.value.dtype for tensor in layer.tensors().values()} <= {np.dtype(dtype)}


@every_layer
def test_float32_and_float64_agree(case):
    make, x = CASES[case]
    layer = make()
    y = layer.forward(x.astype(np.float32))
    dx = layer.backward(np.cos(y))
    exact = layer.astype(np.float64).forward(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, layer.backward(np.cos(exact)), rtol=1e-3, atol=1e-3 * np.abs(dx).max())


@every_layer
def test_forward_and_backward_repeat_to_the_last_bit(case):
    layer, x = fresh(case, np.float32)
    results = []
    for _ in range(2):
        layer.zero_grad()
        y = layer.forward(x)
        results.append([y, layer.backward(y), *gradients(layer).values()])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@every_layer
def test_how_an_array_lies_in_memory_makes_no_difference(case):
    layer, x = fresh(case)
    y = layer.forward(x)
    dy = np.cos(y)
    dx = layer.backward(dy)
    spread = np.zeros((*x.shape, 2))
    spread[..., 0] = x
    np.testing.assert_allclose(layer.forward(spread[..., 0]), y, atol=1e-12)
    np.testing.assert_allclose(layer.backward(np.asfortranarray(dy)), dx, atol=1e-12)


@every_layer
def test_the_number_of_workers_makes_no_difference(case, monkeypatch):
    results = []
    for workers in ("1", "2", "3"):
        monkeypatch.setenv("TINYSRGAN_THREADS", workers)
        layer, x = fresh(case)
        for i, tensor in enumerate(layer.tensors().values()):  # new layers start at random
            tensor.value[...] = np.random.default_rng(i).uniform(0.1, 1, tensor.value.shape)
        y = layer.forward(x)
        results.append([y, layer.backward(np.cos(y)), *gradients(layer).values()])
    for one, two, three in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(three, one, rtol=1e-9, atol=1e-9)


@every_layer
def test_an_image_alone_in_eval_mode_is_as_in_company(case):
    layer, x = fresh(case)
    layer.forward(x)
    layer.eval()
    together = layer.forward(np.concatenate([x] * 4))
    np.testing.assert_allclose(layer.forward(x[:1]), together[:1], atol=1e-12)
    np.testing.assert_allclose(layer.forward(x), together[: len(x)], atol=1e-12)


@pytest.mark.parametrize("make", [lambda: Generator(1, 4, seed=1), lambda: Discriminator(32, 4, 8, seed=1)])
def test_an_image_alone_is_as_in_company_for_whole_nets(make):
    x = np.random.default_rng(3).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    net = make()
    net.forward(x)
    net.eval()
    np.testing.assert_allclose(net.forward(x[2:3]), net.forward(x)[2:3], atol=1e-5)


def test_paths():
    net = Generator(4, 8)
    assert {"head.conv.w", "body.3.conv1.w", "body.3.norm2.scale", "body.conv.b", "upscale.1.prelu.slope"} <= set(
        net.parameters()
    )
    assert net.parameters().keys() < net.tensors().keys()
    assert "body.norm.mean" in net.tensors() and "body.norm.mean" not in net.parameters()
    assert {layer.path for layer in net.layers()} >= {"body", "body.3", "body.3.conv1"}


def test_a_layer_without_a_path_is_called_by_its_kind():
    with pytest.raises(RuntimeError, match=r"^BatchNorm: backward\(\)"):
        BatchNorm(3).backward(np.zeros((1, 1, 1, 3)))
