"""The protocol of ``layers/base.py``: one test for each rule, run on every layer and net of the registry."""

import numpy as np
import pytest

from tinysrgan import layers, models
from tinysrgan.gradcheck.registry import LAYERS, NETS, example
from tinysrgan.layers import Buffer, Conv2D, Dense, Layer, Residual, Sequential, frozen
from tinysrgan.models import VGG19, Discriminator, Generator, vgg19
from tinysrgan.training.config import Options
from tinysrgan.training.srgan import SRGAN

ALL = LAYERS | NETS


def uniform(*shape):
    """Random elements in [-1, 1], float64."""
    return np.random.default_rng(7).uniform(-1, 1, shape)


every_layer = pytest.mark.parametrize("case", ALL)


def make(case, dtype=np.float64):
    """The example layer of this name, labelled ``some.path``."""
    return example(case)[0].label("some.path").astype(dtype)


def input_of(case, images=None, dtype=np.float64):
    """Its input, with another batch size if ``images`` is given."""
    shape = ALL[case][1]
    return uniform(images or shape[0], *shape[1:]).astype(dtype)


def cotangent(y):
    """A random cotangent for ``backward``. Ones would hide mistakes: batch-norm's dx is then zero."""
    return np.random.default_rng(2).uniform(-1, 1, y.shape).astype(y.dtype)


def run(layer, x, dy=None):
    """Run one forward and one backward pass; return y, dx and the parameters' gradients by name."""
    layer.zero_grad()
    y = layer.forward(x)
    dx = layer.backward(cotangent(y) if dy is None else dy)
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
def test_backward_adds_to_gradients(case):
    layer, x = make(case), input_of(case)
    once = run(layer, x)
    layer.backward(cotangent(layer.forward(x)))
    for name, parameter in layer.parameters().items():
        if not name.endswith(".b"):  # a bias before batch-norm has no effect, so its gradient is zero
            assert np.abs(once[name]).max() > 1e-6, f"{name}: the gradient is zero, so doubling it proves nothing"
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=0, atol=1e-10, err_msg=name)


@every_layer
def test_dx_has_the_shape_of_x(case):
    x = input_of(case)
    results = run(make(case), x)
    assert results["dx"].shape == x.shape
    assert np.abs(results["dx"]).max() > 0


@every_layer
def test_forward_and_backward_do_not_write_into_their_arguments(case):
    layer, x = make(case), input_of(case)
    x.flags.writeable = False
    y = layer.forward(x)
    dy = cotangent(y)
    dy.flags.writeable = False
    layer.backward(dy)
    layer.eval().forward(x)


@every_layer
def test_later_passes_do_not_change_y(case):
    """``forward`` returns an array that neither ``backward`` nor the next ``forward`` writes into."""
    layer, x = make(case), input_of(case)
    y = layer.forward(x)
    before = y.copy()
    layer.backward(cotangent(y))
    layer.forward(-x)
    np.testing.assert_array_equal(y, before)


@every_layer
def test_backward_without_forward_raises_and_names_the_layer(case):
    layer = make(case)
    dy = cotangent(layer.forward(input_of(case)))
    layer.train()
    with pytest.raises(RuntimeError, match=r"some\.path.*forward\(\) in train mode"):
        layer.backward(dy)


@every_layer
def test_second_backward_raises_and_names_the_layer(case):
    layer = make(case)
    dy = cotangent(layer.forward(input_of(case)))
    layer.backward(dy)
    with pytest.raises(RuntimeError, match=r"some\.path.*forward\(\) in train mode"):
        layer.backward(dy)


@every_layer
def test_backward_after_forward_in_eval_mode_raises_and_names_the_layer(case):
    layer, x = make(case), input_of(case)
    layer.forward(x)
    dy = cotangent(layer.eval().forward(x))
    with pytest.raises(RuntimeError, match=r"some\.path.*forward\(\) in train mode"):
        layer.backward(dy)


def test_error_names_the_class_of_a_layer_without_path():
    with pytest.raises(RuntimeError, match=r"^ReLU: backward\(\) needs"):
        layers.ReLU().backward(np.ones((1, 1)))


# ---------------------------------------------------------------- train, eval, frozen


@every_layer
def test_eval_mode_saves_nothing(case):
    layer, x = make(case), input_of(case)
    layer.forward(x)
    layer.eval()
    assert all(inner._saved is None for inner in layer.layers()), "eval() must drop what train mode saved"
    layer.forward(x)
    assert all(inner._saved is None for inner in layer.layers())


@every_layer
def test_backward_drops_what_forward_saved(case):
    layer = make(case)
    run(layer, input_of(case))
    assert all(inner._saved is None for inner in layer.layers())


@every_layer
def test_frozen_layer_returns_dx_and_changes_no_tensor_or_gradient(case):
    x = input_of(case)
    expected = run(make(case), x)
    layer = make(case).freeze()
    for parameter in layer.parameters().values():
        parameter.grad[...] = 0.5
    before = {name: tensor.value.copy() for name, tensor in layer.tensors().items()}
    y = layer.forward(x)
    np.testing.assert_array_equal(y, expected["y"])
    np.testing.assert_array_equal(layer.backward(cotangent(y)), expected["dx"])
    for name, tensor in layer.tensors().items():
        np.testing.assert_array_equal(tensor.value, before[name], err_msg=name)
    for name, parameter in layer.parameters().items():
        assert (parameter.grad == 0.5).all(), name


@every_layer
def test_buffers_change_only_in_train_mode(case):
    layer, x = make(case), input_of(case)
    buffers = {name: tensor for name, tensor in layer.tensors().items() if isinstance(tensor, Buffer)}
    before = {name: buffer.value.copy() for name, buffer in buffers.items()}
    layer.eval().forward(x)
    for name, buffer in buffers.items():
        np.testing.assert_array_equal(buffer.value, before[name], err_msg=name)
    layer.train().forward(x)
    for name, buffer in buffers.items():
        assert (buffer.value != before[name]).all(), name


@every_layer
def test_forward_and_backward_do_not_change_parameters(case):
    layer = make(case)
    before = {name: parameter.value.copy() for name, parameter in layer.parameters().items()}
    run(layer, input_of(case))
    for name, parameter in layer.parameters().items():
        np.testing.assert_array_equal(parameter.value, before[name], err_msg=name)


def test_frozen_context_restores_all_flags_after_an_error():
    net = Sequential(a=Dense(2, 2), b=Dense(2, 2).freeze())
    with pytest.raises(KeyError), frozen(net):
        assert [layer.frozen for layer in net.layers()] == [True, True, True]
        raise KeyError
    assert [layer.frozen for layer in net.layers()] == [False, False, True]


def test_one_layer_of_a_net_can_be_frozen_alone():
    net = Sequential(a=Dense(2, 2), b=Dense(2, 2))
    net["a"].freeze()
    gradients = run(net, uniform(3, 2))
    assert not gradients["a.w"].any()
    assert gradients["b.w"].any()


def test_first_convolution_in_training_computes_dx_only_while_frozen():
    """Nobody uses dx of an image, except where the net only passes a gradient on, as the frozen discriminator does."""
    x = input_of("Conv2D")
    expected, layer = run(make("Conv2D"), x), make("Conv2D")
    layer.needs_dx = False
    found = run(layer, x)
    assert found.pop("dx").size == 0
    assert_same(found, {name: value for name, value in expected.items() if name != "dx"})
    np.testing.assert_array_equal(run(layer.freeze(), x)["dx"], expected["dx"])


def test_an_srgan_computes_no_dx_of_images():
    srgan = SRGAN.build(Options(hr_size=16, blocks=1, filters=4, discriminator_dense=8), None, np)
    for net, size in ((srgan.generator, 4), (srgan.discriminator, 16)):
        y = net.forward(uniform(2, size, size, 3).astype(np.float32))
        assert net.backward(cotangent(y)).size == 0
    with frozen(srgan.discriminator):
        y = srgan.discriminator.forward(uniform(2, 16, 16, 3).astype(np.float32))
        assert srgan.discriminator.backward(cotangent(y)).shape == (2, 16, 16, 3)


# ---------------------------------------------------------------- dtypes, memory layout, batches


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_layer
def test_dtype_of_input_and_parameters_is_kept(case, dtype):
    layer, x = make(case, dtype), input_of(case, dtype=dtype)
    for name, result in run(layer, x).items():
        assert result.dtype == dtype, name
    assert layer.eval().forward(x).dtype == dtype
    for name, tensor in layer.tensors().items():
        assert tensor.value.dtype == dtype, name


@every_layer
def test_new_layers_are_float32(case):
    layer = ALL[case][0]()
    assert all(tensor.value.dtype == np.float32 for tensor in layer.tensors().values())
    assert all(parameter.grad.dtype == np.float32 for parameter in layer.parameters().values())


@every_layer
def test_float32_is_close_to_float64(case):
    results = run(make(case, np.float32), input_of(case, dtype=np.float32))
    truths = run(make(case), input_of(case, dtype=np.float32).astype(np.float64), cotangent(results["y"]).astype(float))
    assert_same(results, truths, 1e-4)


@every_layer
def test_repeated_runs_are_identical_bit_for_bit(case):
    results, again = run(make(case), input_of(case)), run(make(case), input_of(case))
    for name, result in results.items():
        np.testing.assert_array_equal(result, again[name], err_msg=name)


def non_contiguous_views(x):
    """Non-contiguous views of the same elements."""
    yield np.asfortranarray(x)
    padded = np.zeros([2 * n for n in x.shape])
    every_other = tuple(slice(None, None, 2) for _ in x.shape)
    padded[every_other] = x
    yield padded[every_other]
    backwards = tuple(slice(None, None, -1) for _ in x.shape)
    yield x[backwards].copy()[backwards]


@every_layer
def test_memory_layout_does_not_change_results(case):
    x = input_of(case)
    expected = run(make(case), x)
    for view, dy in zip(non_contiguous_views(x), non_contiguous_views(cotangent(expected["y"])), strict=True):
        assert not view.flags.c_contiguous
        assert_same(run(make(case), view, dy), expected)


@every_layer
def test_batch_of_one(case):
    x = input_of(case, images=1)
    results = run(make(case), x)
    assert len(results["y"]) == 1
    assert results["dx"].shape == x.shape
    assert all(np.isfinite(result).all() for result in results.values())


@every_layer
def test_in_eval_mode_an_output_does_not_depend_on_the_rest_of_the_batch(case):
    layer, x = make(case).eval(), input_of(case, images=8)
    together = layer.forward(x)
    for i in range(8):
        np.testing.assert_allclose(layer.forward(x[i : i + 1])[0], together[i], rtol=0, atol=1e-10)


@every_layer
def test_one_worker_and_two_give_the_same_results(case, monkeypatch):
    monkeypatch.setattr("tinysrgan.ops.elementwise.SHARED_ELEMENTS", 1)  # split even small arrays
    x = input_of(case, images=3)
    results = {}
    for workers in ("1", "2"):
        monkeypatch.setenv("TINYSRGAN_THREADS", workers)
        results[workers] = run(make(case), x)
    assert_same(results["2"], results["1"])


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (3, 3), (7, 5)])
def test_generator_and_its_parts_accept_odd_sizes(size):
    x = uniform(1, *size, 3)
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
        f"body.{name}.{buffer}"
        for name in ["norm", *(f"{i}.norm{j}" for i in range(4) for j in (1, 2))]
        for buffer in ("running_mean", "running_variance")
    }


@every_layer
def test_path_of_a_layer_is_the_prefix_of_its_tensors(case):
    """A reader can then find the parameters of the layer that an error message names."""
    layer = make(case)
    for inner in layer.layers():
        prefix = inner.path.removeprefix("some.path").removeprefix(".")
        for name, tensor in inner.tensors().items():
            assert layer.tensors()[f"{prefix}.{name}" if prefix else name] is tensor


def test_layers_are_listed_in_forward_order():
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
