"""The rules of ``layers/base.py``: each is one test, and every layer and whole net is held to it."""

import numpy as np
import pytest

from tinysrgan import layers, models
from tinysrgan.layers import Buffer, Conv2D, Dense, Layer, Residual, Sequential, frozen
from tinysrgan.models import VGG19, Discriminator, Generator, vgg19
from tinysrgan.registry import LAYERS, NETS, example

ALL = LAYERS | NETS


def numbers(*shape):
    return np.random.default_rng(7).uniform(-1, 1, shape)


every_layer = pytest.mark.parametrize("case", ALL)


def make(case, dtype=np.float64):
    """The layer of a case, labelled ``some.path``."""
    return example(case)[0].label("some.path").astype(dtype)


def input_of(case, images=None, dtype=np.float64):
    shape = ALL[case][1]
    return numbers(images or shape[0], *shape[1:]).astype(dtype)


def seed_of(y):
    """A gradient to begin ``backward`` with; random, because batch-norm's dx is zero for one of ones."""
    return np.random.default_rng(2).uniform(-1, 1, y.shape).astype(y.dtype)


def run(layer, x, dy=None):
    """y, dx and the gradients of one forward and one backward."""
    layer.zero_grad()
    y = layer.forward(x)
    dx = layer.backward(seed_of(y) if dy is None else dy)
    return {"y": y, "dx": dx} | {name: parameter.grad.copy() for name, parameter in layer.parameters().items()}


def assert_same(results, others, tolerance=1e-10):
    assert results.keys() == others.keys()
    for name, result in results.items():
        scale = max(1, np.abs(others[name]).max())
        np.testing.assert_allclose(result, others[name], rtol=0, atol=tolerance * scale, err_msg=name)


def test_every_layer_and_net_has_an_example():
    public = [value for module in (layers, models, vgg19) for value in vars(module).values()]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Layer)} - {Layer}
    assert kinds == {type(make()) for make, _ in ALL.values()}
    assert all(name.startswith(type(make()).__name__) for name, (make, _) in ALL.items())


def test_every_layer_of_the_nets_is_exported():
    nets = [Generator(1, 4, 2, "nearest", "tanh"), Generator(1, 4, 2), Discriminator(16, 2, 2), VGG19("block1_pool")]
    used = {type(layer).__name__ for net in nets for layer in net.layers()}
    assert used <= {*layers.__all__, "Generator", "Discriminator", "VGG19", "Preprocess"}


# ---------------------------------------------------------------- backward


@every_layer
def test_backward_adds_to_the_gradients(case):
    layer, x = make(case), input_of(case)
    once = run(layer, x)
    layer.backward(seed_of(layer.forward(x)))
    for name, parameter in layer.parameters().items():
        if not name.endswith(".b"):  # a bias in front of batch-norm has no effect, so no gradient
            assert np.abs(once[name]).max() > 1e-6, f"{name}: doubling no gradient proves nothing"
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=0, atol=1e-10, err_msg=name)


@every_layer
def test_dx_has_the_shape_of_x(case):
    x = input_of(case)
    results = run(make(case), x)
    assert results["dx"].shape == x.shape
    assert np.abs(results["dx"]).max() > 0


@every_layer
def test_arguments_are_never_written_into(case):
    layer, x = make(case), input_of(case)
    x.flags.writeable = False
    y = layer.forward(x)
    dy = seed_of(y)
    dy.flags.writeable = False
    layer.backward(dy)
    layer.eval().forward(x)


@every_layer
def test_y_stays_as_it_is(case):
    """``forward`` hands out an array of its own: neither ``backward`` nor the next forward writes into it."""
    layer, x = make(case), input_of(case)
    y = layer.forward(x)
    before = y.copy()
    layer.backward(seed_of(y))
    layer.forward(-x)
    np.testing.assert_array_equal(y, before)


@every_layer
def test_backward_without_forward_names_the_layer(case):
    layer = make(case)
    dy = seed_of(layer.forward(input_of(case)))
    layer.train()
    with pytest.raises(RuntimeError, match=r"some\.path.*forward\(\) in train mode"):
        layer.backward(dy)


@every_layer
def test_a_second_backward_names_the_layer(case):
    layer = make(case)
    dy = seed_of(layer.forward(input_of(case)))
    layer.backward(dy)
    with pytest.raises(RuntimeError, match=r"some\.path.*forward\(\) in train mode"):
        layer.backward(dy)


@every_layer
def test_backward_after_a_forward_in_eval_mode_names_the_layer(case):
    layer, x = make(case), input_of(case)
    layer.forward(x)
    dy = seed_of(layer.eval().forward(x))
    with pytest.raises(RuntimeError, match=r"some\.path.*forward\(\) in train mode"):
        layer.backward(dy)


def test_a_layer_without_a_path_is_named_by_its_class():
    with pytest.raises(RuntimeError, match=r"^ReLU: backward\(\) needs"):
        layers.ReLU().backward(np.ones((1, 1)))


# ---------------------------------------------------------------- train, eval, frozen


@every_layer
def test_eval_mode_keeps_nothing(case):
    layer, x = make(case), input_of(case)
    layer.forward(x)
    layer.eval()
    assert all(inner._saved is None for inner in layer.layers()), "eval() must let go of what train mode kept"
    layer.forward(x)
    assert all(inner._saved is None for inner in layer.layers())


@every_layer
def test_backward_lets_go_of_what_forward_kept(case):
    layer = make(case)
    run(layer, input_of(case))
    assert all(inner._saved is None for inner in layer.layers())


@every_layer
def test_a_frozen_layer_passes_dx_on_and_leaves_its_own_alone(case):
    x = input_of(case)
    expected = run(make(case), x)
    layer = make(case).freeze()
    for parameter in layer.parameters().values():
        parameter.grad[...] = 0.5
    before = {name: tensor.value.copy() for name, tensor in layer.tensors().items()}
    y = layer.forward(x)
    np.testing.assert_array_equal(y, expected["y"])
    np.testing.assert_array_equal(layer.backward(seed_of(y)), expected["dx"])
    for name, tensor in layer.tensors().items():
        np.testing.assert_array_equal(tensor.value, before[name], err_msg=name)
    for name, parameter in layer.parameters().items():
        assert (parameter.grad == 0.5).all(), name


@every_layer
def test_only_train_mode_moves_statistics(case):
    layer, x = make(case), input_of(case)
    statistics = {name: t for name, t in layer.tensors().items() if isinstance(t, Buffer)}
    before = {name: statistic.value.copy() for name, statistic in statistics.items()}
    layer.eval().forward(x)
    for name, statistic in statistics.items():
        np.testing.assert_array_equal(statistic.value, before[name], err_msg=name)
    layer.train().forward(x)
    for name, statistic in statistics.items():
        assert (statistic.value != before[name]).all(), name


@every_layer
def test_parameters_change_only_through_the_optimizer(case):
    layer = make(case)
    before = {name: parameter.value.copy() for name, parameter in layer.parameters().items()}
    run(layer, input_of(case))
    for name, parameter in layer.parameters().items():
        np.testing.assert_array_equal(parameter.value, before[name], err_msg=name)


def test_frozen_for_a_while_puts_everything_back_even_after_an_error():
    net = Sequential(a=Dense(2, 2), b=Dense(2, 2).freeze())
    with pytest.raises(KeyError), frozen(net):
        assert [layer.frozen for layer in net.layers()] == [True, True, True]
        raise KeyError
    assert [layer.frozen for layer in net.layers()] == [False, False, True]


def test_only_one_layer_of_a_net_can_be_frozen():
    net = Sequential(a=Dense(2, 2), b=Dense(2, 2))
    net["a"].freeze()
    gradients = run(net, numbers(3, 2))
    assert not gradients["a.w"].any()
    assert gradients["b.w"].any()


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_layer
def test_the_dtype_stays(case, dtype):
    layer, x = make(case, dtype), input_of(case, dtype=dtype)
    for name, result in run(layer, x).items():
        assert result.dtype == dtype, name
    assert layer.eval().forward(x).dtype == dtype
    for name, tensor in layer.tensors().items():
        assert tensor.value.dtype == dtype, name


@every_layer
def test_layers_start_in_float32(case):
    layer = ALL[case][0]()
    assert all(tensor.value.dtype == np.float32 for tensor in layer.tensors().values())
    assert all(parameter.grad.dtype == np.float32 for parameter in layer.parameters().values())


@every_layer
def test_float32_is_close_to_float64(case):
    results = run(make(case, np.float32), input_of(case, dtype=np.float32))
    truths = run(make(case), input_of(case, dtype=np.float32).astype(np.float64), seed_of(results["y"]).astype(float))
    assert_same(results, truths, 1e-4)


@every_layer
def test_the_same_twice_is_the_same_to_the_last_bit(case):
    results, again = run(make(case), input_of(case)), run(make(case), input_of(case))
    for name, result in results.items():
        np.testing.assert_array_equal(result, again[name], err_msg=name)


def strange_views(x):
    """The same numbers, laid out differently in memory."""
    yield np.asfortranarray(x)
    spread = np.zeros([2 * n for n in x.shape])
    every_other = tuple(slice(None, None, 2) for _ in x.shape)
    spread[every_other] = x
    yield spread[every_other]
    backwards = tuple(slice(None, None, -1) for _ in x.shape)
    yield x[backwards].copy()[backwards]


@every_layer
def test_the_layout_in_memory_makes_no_difference(case):
    x = input_of(case)
    expected = run(make(case), x)
    for view, seed in zip(strange_views(x), strange_views(seed_of(expected["y"])), strict=True):
        assert not view.flags.c_contiguous
        assert_same(run(make(case), view, seed), expected)


@every_layer
def test_a_batch_of_one(case):
    x = input_of(case, images=1)
    results = run(make(case), x)
    assert len(results["y"]) == 1
    assert results["dx"].shape == x.shape
    assert all(np.isfinite(result).all() for result in results.values())


@every_layer
def test_in_eval_mode_an_image_does_not_depend_on_its_company(case):
    layer, x = make(case).eval(), input_of(case, images=8)
    together = layer.forward(x)
    for i in range(8):
        np.testing.assert_allclose(layer.forward(x[i : i + 1])[0], together[i], rtol=0, atol=1e-10)


@every_layer
def test_one_worker_and_two_agree(case, monkeypatch):
    monkeypatch.setattr("tinysrgan.ops.elementwise.SHARED_ELEMENTS", 1)  # share even small arrays
    x = input_of(case, images=3)
    results = {}
    for workers in ("1", "2"):
        monkeypatch.setenv("TINYSRGAN_THREADS", workers)
        results[workers] = run(make(case), x)
    assert_same(results["2"], results["1"])


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (3, 3), (7, 5)])
def test_odd_sizes_of_the_generator_and_its_parts(size):
    x = numbers(1, *size, 3)
    for net in (Generator(1, 4, 2), Generator(1, 4, 4, "nearest"), Residual(Conv2D(3, 3, 3)), Conv2D(3, 4, 3, 2)):
        results = run(net.astype(np.float64), x)
        assert results["dx"].shape == x.shape
        assert all(np.isfinite(result).all() for result in results.values())


# ---------------------------------------------------------------- names


def test_parameters_are_named_by_path():
    generator = Generator(4, 4, 4)
    names = generator.parameters().keys()
    assert {"head.conv.w", "head.prelu.slope", "body.3.conv1.w", "body.3.norm2.beta", "body.conv.b"} <= names
    assert {"upscale.0.conv.w", "upscale.1.prelu.slope", "tail.w", "tail.b"} <= names
    assert generator.tensors().keys() - names == {
        f"body.{name}.{statistic}"
        for name in ["norm", *(f"{i}.norm{j}" for i in range(4) for j in (1, 2))]
        for statistic in ("running_mean", "running_variance")
    }


@every_layer
def test_a_path_leads_to_its_layer(case):
    """So that an error that names a layer can be looked up among the parameters."""
    layer = make(case)
    for inner in layer.layers():
        prefix = inner.path.removeprefix("some.path").removeprefix(".")
        for name, tensor in inner.tensors().items():
            assert layer.tensors()[f"{prefix}.{name}" if prefix else name] is tensor


def test_the_order_of_the_layers_is_that_of_the_forward_pass():
    called = []

    class Probe(Layer):
        def forward(self, x):
            called.append(self)
            return x

    net = Sequential(Probe(), Residual(Probe(), Sequential(a=Probe())), last=Probe())
    net.forward(np.ones((1, 1)))
    assert called == [layer for layer in net.layers() if isinstance(layer, Probe)]


@every_layer
def test_zero_grad_and_astype_reach_every_tensor(case):
    layer = make(case)
    run(layer, input_of(case))
    layer.zero_grad()
    assert not any(parameter.grad.any() for parameter in layer.parameters().values())
    layer.astype(np.float32)
    assert all(tensor.value.dtype == np.float32 for tensor in layer.tensors().values())
