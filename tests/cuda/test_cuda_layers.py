"""All kernels except convolution run on the CPU, compared with float64 and with the layers in NumPy.

Memory that a kernel does not write holds NaN, threads run in three orders, and the sizes leave remainders in every
block.
"""

from copy import deepcopy

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import no_reading
from planted import plant

from tinysrgan import layers, ops
from tinysrgan.core.device import array_module, to_device
from tinysrgan.gradcheck.registry import LAYERS, example
from tinysrgan.layers import Parameter
from tinysrgan.layers.container import Fused
from tinysrgan.losses import binary_cross_entropy, mean_sigmoid, mean_squared_error
from tinysrgan.ops import Norm
from tinysrgan.ops.cuda import activation, adam, batch_norm, launch, losses, max_pool, resample, sums
from tinysrgan.optimizers.adam import Adam
from tinysrgan.optimizers.muon import Muon
from tinysrgan.training.average import MovingAverage

pytestmark = pytest.mark.kernels

# Rows and channels: fewer rows than a block; remainders of rows in a thread, in a block and in the last part (1 of
# 1601); channels that leave threads idle; channels in several groups.
SHAPES = [(1, 1), (1000, 1), (2, 27, 33, 3), (5, 3, 13), (2, 9, 8, 64), (3, 5, 5, 70), (1601, 50), (19, 300)]
SHAPES += [(2, 4, 3, 515), (2, 2048)]
IMAGES = [(2, 3, 5, 3), (1, 4, 70, 5), (2, 2, 3, 301), (1, 1, 260, 1)]  # N H W K
FACTORS = [2, 3, 4]
POOLED = [(2, 6, 4, 3), (2, 5, 7, 70), (2, 2, 3, 301), (1, 1, 4, 2), (1, 4, 600, 1)]


@pytest.fixture(params=runner.ORDERS)
def any_order(request):
    with runner.order(request.param):
        yield


def values(*shape, seed=0, dtype=np.float32, mean=0.0):
    return np.array(np.random.default_rng([seed, *shape]).standard_normal(shape) + mean, dtype)


def on_device(cupy, *arrays):
    return [cupy.asarray(array) for array in arrays]


def over_rows(x):
    return x.astype(np.float64).reshape(-1, x.shape[-1])


def close(result, truth, scale=None, error=2e-6):
    """Assert errors of at most ``error`` (float64: 1e-8 of it) of ``scale``, by default the largest of ``truth``."""
    result = result.get()
    assert result.shape == truth.shape
    error *= 1 if result.dtype == np.float32 else 1e-8
    scale = np.abs(truth).max(initial=0) if scale is None else scale
    assert (np.abs(result - truth) <= error * scale + 1e-300).all(), np.abs(result - truth).max()


# ---------------------------------------------------------------- checks; planted faults must fail one of them


def check_sums(cupy, shape, dtype=np.float32):
    x = values(*shape, dtype=dtype)
    with no_reading():
        result = sums.sum_per_channel(cupy.asarray(x))
    assert result.dtype == dtype
    close(result, over_rows(x).sum(axis=0), np.abs(over_rows(x)).sum(axis=0).max())
    total = values(shape[-1], seed=1, dtype=dtype)
    found = cupy.asarray(total)
    assert sums.sum_per_channel(cupy.asarray(x), found) is found
    close(found, total + over_rows(x).sum(axis=0), np.abs(over_rows(x)).sum(axis=0).max() + 1)


def check_moments(cupy, shape, dtype=np.float32, mean=1000.0):
    x = values(*shape, dtype=dtype, mean=mean)
    with no_reading():
        found, variance = batch_norm.moments(cupy.asarray(x))
    assert found.dtype == variance.dtype == dtype
    close(found, over_rows(x).mean(axis=0), error=2e-7)
    close(variance, over_rows(x).var(axis=0))


EPSILON = 1e-3


def vectors(channels, dtype, count=4):
    """As many random vectors; the second is positive, as a variance is."""
    found = [values(channels, seed=seed, dtype=dtype) for seed in range(2, 2 + count)]
    found[1] = np.abs(found[1]) + np.asarray(0.1, dtype)
    return found


def slopes(channels, dtype):
    """No activation, a leaky and a parametric ReLU."""
    return None, 0.25, values(channels, seed=9, dtype=dtype)


def leaky(z, slope):
    return z if slope is None else np.where(z > 0, z, slope * z)


def check_normalize(cupy, shape, dtype=np.float32):
    x, (mean, variance, gamma, beta, *running) = values(*shape, dtype=dtype), vectors(shape[-1], dtype, 6)
    shortcut = values(*shape, seed=1, dtype=dtype)
    x_there, *given = on_device(cupy, x, mean, variance, gamma, beta)
    moved = on_device(cupy, *running)
    z = (x.astype(np.float64) - mean) / np.sqrt(variance.astype(np.float64) + EPSILON) * gamma + beta
    with no_reading():
        y = batch_norm.normalize(x_there, Norm(*given, EPSILON), running=tuple(moved), rate=0.25)
    assert y.dtype == dtype
    close(y, z)
    for found, before, batch in zip(moved, running, (mean, variance), strict=True):
        close(found, 0.75 * before.astype(np.float64) + 0.25 * batch)
    for slope in slopes(shape[-1], dtype):
        norm = Norm(*given, EPSILON, cupy.asarray(slope) if isinstance(slope, np.ndarray) else slope)
        close(batch_norm.normalize(x_there, norm, cupy.asarray(shortcut)), leaky(z, slope) + shortcut)


def check_batch_norm_gradient(cupy, shape, dtype=np.float32):
    x, dy = values(*shape, dtype=dtype, mean=3), values(*shape, seed=1, dtype=dtype)
    mean, variance, gamma, beta, before = vectors(shape[-1], dtype, 5)
    x = x + mean - 3  # so that half of what the activation gets is negative
    std = np.sqrt(variance.astype(np.float64) + EPSILON)
    normal = (x.astype(np.float64) - mean) / std
    z = normal * gamma + beta
    dy[np.abs(z) < 1e-5 * np.abs(z).max()] = 0  # where rounding may decide the sign of z
    dy_there, x_there, *given = on_device(cupy, dy, x, mean, variance, gamma, beta)
    arrays, n = (dy_there, x_there), len(over_rows(x))
    for slope in slopes(shape[-1], dtype):
        norm = Norm(*given, EPSILON, cupy.asarray(slope) if isinstance(slope, np.ndarray) else slope)
        gradients = on_device(cupy, before, before, before)
        with no_reading():
            total = batch_norm.grad_sums(*arrays, norm, tuple(gradients[:2]), gradients[2])
            alone = batch_norm.grad_sums(*arrays, norm)
            dx = batch_norm.grad_input(*arrays, norm, total)
        assert total.dtype == dx.dtype == dtype
        np.testing.assert_array_equal(total.get(), alone.get())
        inner = dy.astype(np.float64) * (1 if slope is None else np.where(z > 0, 1.0, slope))
        terms = np.stack([over_rows(inner), over_rows(inner * normal)])
        dslope = over_rows(dy * (np.minimum(z, 0) if slope is not None else 0 * z)).sum(axis=0)
        sums, scale = terms.sum(axis=1), np.abs(terms).sum(axis=1).max()
        close(total, sums, scale)
        for gradient, expected in zip(gradients, [*sums, dslope], strict=True):
            close(gradient, expected + before, scale * (1 + np.abs(z).max()) + 1)
        close(dx, gamma / std * (inner - sums[0] / n - normal * sums[1] / n))


def check_activation(cupy, shape, dtype=np.float32):
    x, dy = values(*shape, dtype=dtype), values(*shape, seed=1, dtype=dtype)
    x.reshape(-1)[::7] = 0
    for slope in (values(shape[-1], seed=2, dtype=dtype), 0.2):
        a, b = on_device(cupy, x, dy)
        c = slope if isinstance(slope, float) else cupy.asarray(slope)
        slope = np.asarray(slope, dtype)
        with no_reading():
            y, dx = activation.leaky(a, c), activation.leaky_grad(a, b, c)
        np.testing.assert_array_equal(y.get(), np.where(x > 0, x, slope * x))
        np.testing.assert_array_equal(dx.get(), np.where(x > 0, dy, slope * dy))
        assert y.dtype == dx.dtype == dtype
    slope, before = values(shape[-1], seed=2, dtype=dtype), values(shape[-1], seed=3, dtype=dtype)
    grad = cupy.asarray(before)
    with no_reading():
        dx = activation.prelu_grad(*on_device(cupy, x, dy, slope), grad)
    np.testing.assert_array_equal(dx.get(), np.where(x > 0, dy, slope * dy))
    terms = over_rows(dy) * np.minimum(over_rows(x), 0)
    close(grad, terms.sum(axis=0) + before, np.abs(terms).sum(axis=0).max() + 1)


def check_losses(cupy, shape, dtype=np.float32):
    """The kernels of the losses give what the formulas give in float64."""
    y, target = values(*shape, dtype=dtype) * 3, values(*shape, seed=1, dtype=dtype)
    for kernel, formula, other in (
        (losses.squared_error, mean_squared_error, target),
        (losses.cross_entropy, binary_cross_entropy, 0.9),
    ):
        on_gpu = other if isinstance(other, float) else cupy.asarray(other)
        truth = formula(y.astype(np.float64), other if isinstance(other, float) else other.astype(np.float64))
        with no_reading():
            found = kernel(cupy.asarray(y), on_gpu)
        assert found[0].dtype == found[1].dtype == dtype
        for result, expected in zip(found, truth, strict=True):
            close(result, np.asarray(expected))
    with no_reading():
        probability = losses.mean_sigmoid(cupy.asarray(y))
    assert probability.dtype == dtype
    close(probability, np.asarray(mean_sigmoid(y.astype(np.float64))))


def check_max_pool(cupy, images, dtype=np.float32):
    """Bit for bit, with equal elements in a cell, NaN, and an odd last row and column."""
    x = np.round(values(*images, dtype=dtype))
    x.reshape(-1)[5::50] = np.nan
    layer = layers.MaxPool()
    y = layer.forward(x)
    dy = values(*y.shape, seed=1, dtype=dtype)
    with no_reading():
        found = max_pool.max_pool(cupy.asarray(x))
        dx = max_pool.max_pool_grad(cupy.asarray(x), found, cupy.asarray(dy))
    np.testing.assert_array_equal(found.get(), y)
    np.testing.assert_array_equal(dx.get(), layer.backward(dy))
    assert found.dtype == dx.dtype == dtype


def check_resample(cupy, images, factor, dtype=np.float32):
    """The elements are equal bit for bit: they are moved, or added in the same order as in the layer."""
    n, h, w, k = images
    for layer, forward, backward, c in (
        (layers.PixelShuffle(factor), resample.shuffle, resample.shuffle_grad, k * factor**2),
        (layers.Upsample(factor), resample.repeat, resample.repeat_grad, k),
    ):
        x, dy = values(n, h, w, c, dtype=dtype), values(n, h * factor, w * factor, k, seed=1, dtype=dtype)
        with no_reading():
            y, dx = forward(cupy.asarray(x), factor), backward(cupy.asarray(dy), factor)
        np.testing.assert_array_equal(y.get(), layer.forward(x))
        np.testing.assert_array_equal(dx.get(), layer.backward(dy))
        assert y.dtype == dx.dtype == dtype


ADAM_SHAPES = [(3, 3, 2, 70), (64,), (), (9001,), (0, 4), (1,)]


def check_adam(cupy, dtype=np.float32):
    """Compare three steps with NumPy's; elements outside the parameters must not change."""
    expected = Adam({str(i): Parameter(values(*s, seed=i, dtype=dtype)) for i, s in enumerate(ADAM_SHAPES)}, beta1=0.5)
    groups, margins = [], []
    for p in expected.parameters.values():
        wide = [cupy.full(p.value.size + 8, 77, dtype) for _ in range(4)]
        group = tuple(array[4 : 4 + p.value.size].reshape(p.value.shape) for array in wide)
        group[0][...] = cupy.asarray(p.value)
        for array in group[1:]:
            array[...] = 0
        groups.append(group)
        margins += [array[at] for array in wide for at in (slice(4), slice(4 + p.value.size, None))]
    update = adam.Update()
    for step in range(1, 4):
        correction = (1 - expected.beta2**step) ** 0.5
        rate, epsilon = expected.learning_rate * correction / (1 - 0.5**step), 1e-7 * correction
        for p, (_, gradient, *_) in zip(expected.parameters.values(), groups, strict=True):
            p.grad[...] = values(*p.value.shape, seed=step, dtype=dtype)
            p.grad.reshape(-1)[1::3] = 0  # only epsilon prevents 0 / 0 here
            gradient[...] = cupy.asarray(p.grad)
        expected.step()
        with no_reading():
            update(groups, {"beta1": 0.5, "beta2": 0.999, "rate": rate, "epsilon": epsilon}.copy)
    for (name, p), (value, gradient, m, v) in zip(expected.parameters.items(), groups, strict=True):
        close(value, p.value.astype(np.float64))
        close(m, expected.m[name].astype(np.float64))
        close(v, expected.v[name].astype(np.float64))
        assert not gradient.get().any()
    assert all((margin.get() == 77).all() for margin in margins)


# A group of equal ones, a wide one, and ones of several tiles and of several pieces; flattened: (R S C, K).
MATRICES = [(3, 3, 4, 8), (3, 3, 4, 8), (1, 1, 12, 40), (3, 3, 5, 33), (1, 1, 40, 70), (3, 3, 16, 32), (1, 1, 7, 7)]


def check_muon(cupy, dtype=np.float64):
    """Three steps beside NumPy's. In float32, the iteration makes rounding errors a thousand times larger."""
    expected = Muon({str(i): Parameter(values(*s, seed=i, dtype=dtype)) for i, s in enumerate(MATRICES)}, 0.1)
    parameters = expected.parameters | expected.matrices
    found = Muon({name: Parameter(cupy.asarray(p.value)) for name, p in parameters.items()}, 0.1)
    for step in range(1, 4):
        for name, p in expected.matrices.items():
            p.grad[...] = values(*p.value.shape, seed=step, dtype=dtype)
            found.matrices[name].grad[...] = cupy.asarray(p.grad)
        expected.step()
        with no_reading():
            found.step()
    error = 1e-3 if dtype == np.float32 else 1e-2  # of which ``close`` takes a hundred-millionth
    for name, p in expected.matrices.items():
        close(found.matrices[name].value, p.value.astype(np.float64), error=error)
        close(found.m[name], expected.m[name].astype(np.float64))
        assert not found.matrices[name].grad.get().any()


# ---------------------------------------------------------------- results


ROWS = [check_sums, check_moments, check_normalize, check_batch_norm_gradient, check_activation, check_losses]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("check", ROWS)
def test_rows(cupy, any_order, check, shape):
    check(cupy, shape)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("images", IMAGES, ids=str)
def test_resample(cupy, any_order, images, factor):
    check_resample(cupy, images, factor)


@pytest.mark.parametrize("images", POOLED, ids=str)
def test_max_pool(cupy, any_order, images):
    check_max_pool(cupy, images)


def test_adam(cupy, any_order):
    check_adam(cupy)


def check_average(cupy, dtype=np.float64):
    """Two updates beside NumPy's, with tensors of several pieces."""
    source = layers.Sequential(layers.Conv2D(12, 50, 3), layers.BatchNorm(50)).astype(dtype)
    expected, found = MovingAverage(source, 0.9), MovingAverage(deepcopy(source).to(cupy), 0.9)
    for t in (5, 6):
        for pairs in (expected._pairs, found._pairs):
            for i, (_, tensor) in enumerate(pairs):
                change = values(*tensor.value.shape, seed=10 * t + i, dtype=dtype)
                tensor.value += to_device(change, array_module(tensor.value))
        expected.update(t)
        with no_reading():
            found.update(t)
    for name, tensor in found.net.tensors().items():
        close(tensor.value, expected.net.tensors()[name].value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_moving_average_of_a_net(cupy, any_order, dtype):
    check_average(cupy, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_muon(cupy, any_order, dtype):
    check_muon(cupy, dtype)


def test_float64_stays_float64(cupy):
    for check in ROWS:
        check(cupy, (3, 5, 5, 70), np.float64)
    check_max_pool(cupy, POOLED[0], np.float64)
    check_resample(cupy, IMAGES[0], 2, np.float64)
    check_adam(cupy, np.float64)


def test_sums_do_not_depend_on_the_order_of_threads(cupy):
    x, dy, slope = on_device(cupy, values(40, 30, 3), values(40, 30, 3, seed=1), values(3))
    results = []
    for turns in runner.ORDERS:
        with runner.order(turns):
            norm = Norm(slope, slope * slope, slope, slope, EPSILON)
            total, slope_grad = batch_norm.grad_sums(dy, x, norm), 0 * slope
            activation.prelu_grad(x, dy, slope, slope_grad)
            loss, _ = losses.squared_error(x, dy)
            results.append([sums.sum_per_channel(x), *batch_norm.moments(x), total, slope_grad, loss])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a.get(), b.get())


def test_more_rows_than_the_largest_number_of_parts(cupy, monkeypatch):
    """The number of parts is limited, so threads process more rows if there are many."""
    shape = 50, 120, 3
    assert launch.walk_sums(cupy.empty(shape)).parts == 9
    monkeypatch.setattr(launch, "PARTS", 3)
    assert launch.walk_sums(cupy.empty(shape)).parts == 3
    for check in ROWS:
        check(cupy, shape)


def test_tickets_are_zero_again_after_every_sum(cupy):
    for shape in SHAPES:
        check_sums(cupy, shape)
        assert not launch.tickets(cupy).get().any()


def test_arrays_may_be_non_contiguous_or_unaligned(cupy):
    x = values(3, 5, 7, 8)
    view = cupy.asarray(np.ascontiguousarray(x.transpose(3, 0, 1, 2))).transpose(1, 2, 3, 0)
    shifted = cupy.empty(x.size + 1, np.float32)[1:].reshape(x.shape)
    shifted[...] = cupy.asarray(x)
    assert shifted.data.ptr % 16 and not view.flags.c_contiguous
    for array in (view, shifted):
        close(sums.sum_per_channel(array), over_rows(x).sum(axis=0))
        close(batch_norm.moments(array)[1], over_rows(x).var(axis=0))
        np.testing.assert_array_equal(resample.shuffle(array, 2).get(), layers.PixelShuffle(2).forward(x))


# ---------------------------------------------------------------- precision


def test_variance_is_accurate(cupy):
    """Test far from 0, with an outlier at the start of a block, in a constant channel, and in a single row."""
    x = values(64, 64, 3, mean=1000)
    x[..., 2] = 1000.123
    mean, variance = (array.get() for array in batch_norm.moments(cupy.asarray(x)))
    np.testing.assert_allclose(mean, over_rows(x).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(variance[:2], over_rows(x).var(axis=0)[:2], rtol=1e-5)
    assert variance[2] == 0
    x = values(64, 64, 3)
    x[0, 0] = 1e4
    variance = batch_norm.moments(cupy.asarray(x))[1].get()
    np.testing.assert_allclose(variance, over_rows(x).var(axis=0), rtol=1e-5)
    assert not batch_norm.moments(cupy.asarray(x[0, :1]))[1].get().any()


def test_nan_and_infinity_are_passed_on(cupy):
    """A training run must be able to detect them."""
    x = values(9, 20, 3)
    x[4, 5, 1] = np.nan
    x[0, 0, 2] = np.inf
    a = cupy.asarray(x)
    ones = cupy.ones(3, np.float32)
    slope_grad = 0 * ones
    activation.prelu_grad(-a, cupy.ones(x.shape, np.float32), ones, slope_grad)
    for result in (
        sums.sum_per_channel(a),
        *batch_norm.moments(a),
        batch_norm.grad_sums(a, cupy.ones(x.shape, np.float32), Norm(0 * ones, *[ones] * 3, EPSILON))[0],
        slope_grad,
    ):
        assert np.isfinite(result.get()).tolist() == [True, False, False]
    assert np.isnan(activation.leaky(a, 0 * ones).get()).sum() == 1
    assert np.isnan(losses.squared_error(a, 0 * a)[0].get()) and np.isnan(losses.cross_entropy(a, 0.0)[0].get())


# ---------------------------------------------------------------- compared with the layers in NumPy


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_gives_on_the_gpu_what_it_gives_in_numpy(cupy, name):
    """Compare y in both modes and all gradients; no element is copied to the CPU in between."""
    layer, x = example(name)
    x = x.astype(np.float32)
    expected = results(layer.astype(np.float32), x, np.cos)
    layer = example(name)[0].astype(np.float32).to(cupy)
    with no_reading():
        found = results(layer, cupy.asarray(x), np.cos)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert array_module(found[key]) is cupy, key
        close(found[key], value, max(1, np.abs(value).max()), error=1e-5)


CHAINS = {
    "batch-norm and PReLU": lambda: layers.Sequential(layers.BatchNorm(3), layers.PReLU(3)),
    "batch-norm and leaky ReLU": lambda: layers.Sequential(layers.BatchNorm(3), layers.LeakyReLU(), layers.Tanh()),
    "convolution and ReLU": lambda: layers.Sequential(layers.Conv2D(3, 4, 3), layers.ReLU(), layers.Conv2D(4, 3, 1)),
    "residual": lambda: layers.Residual(layers.Conv2D(3, 3, 3), layers.BatchNorm(3)),
    "residual of one": lambda: layers.Residual(layers.BatchNorm(3)),
    "residual that ends in PReLU": lambda: layers.Residual(layers.BatchNorm(3), layers.PReLU(3)),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_fused_layers_give_what_they_give_one_by_one(cupy, monkeypatch, name, frozen):
    """On the GPU, and in NumPy, where they are not fused otherwise and all bits are the same."""
    x = values(2, 5, 6, 3)

    def made():
        net = CHAINS[name]().freeze(frozen)
        for i, tensor in enumerate(net.tensors().values()):
            tensor.value[...] = np.abs(values(*tensor.value.shape, seed=i)) - (0.5 if tensor.value.ndim > 1 else 0)
        return net

    expected = results(made(), x, np.cos)
    with no_reading():
        found = results(made().to(cupy), cupy.asarray(x), np.cos)
    monkeypatch.setattr(ops, "fuses", lambda x: True)
    fused = any(isinstance(layer, Fused) for layer in made().fused_layers(x))
    in_numpy = results(made(), x, np.cos)
    assert fused or name.startswith("residual")
    assert found.keys() == in_numpy.keys() == expected.keys()
    for key, value in expected.items():
        close(found[key], value, max(1, np.abs(value).max()), error=1e-5)
        np.testing.assert_array_equal(in_numpy[key], value)


def results(layer, x, dy_of):
    """Return y in both modes, dx, and all tensors and gradients after one forward and one backward pass."""
    y = layer.forward(x)
    found = {"y": y, "dx": layer.backward(dy_of(y)), "y in eval mode": layer.eval().forward(x)}
    found |= {name: tensor.value for name, tensor in layer.tensors().items()}
    return found | {f"d{name}": parameter.grad for name, parameter in layer.parameters().items()}


# ---------------------------------------------------------------- Adam's table


def settings():
    return {"beta1": 0.9, "beta2": 0.999, "rate": 0.1, "epsilon": 1e-7}


def test_adam_s_table_is_cached_until_the_arrays_change(cupy, monkeypatch):
    made = []
    monkeypatch.setattr(adam, "table", lambda groups, make=adam.table: made.append(1) or make(groups))
    group = tuple(cupy.ones(5, np.float32) for _ in range(4))
    update = adam.Update()
    update([group], settings)
    update([group], settings)
    assert len(made) == 1
    moved = (cupy.ones(5, np.float32), *group[1:])
    before = group[0].get()
    group[1][...] = 1
    update([moved], settings)
    assert len(made) == 2
    np.testing.assert_array_equal(group[0].get(), before)
    assert (moved[0].get() < 1).all()
    update([moved, tuple(cupy.ones(3, np.float32) for _ in range(4))], settings)
    assert len(made) == 3
    adam.Update()([], settings)


@pytest.mark.parametrize("wrong", [np.ones(4, np.float32), np.ones(5), np.ones((5, 2), np.float32)[:, 0]], ids=repr)
def test_adam_refuses_unsuitable_arrays(cupy, wrong):
    group = [cupy.ones(5, np.float32) for _ in range(3)]
    strided = (
        cupy.ones((5, 2), np.float32)[:, 0]
        if wrong.strides == (8,) and wrong.dtype == np.float32
        else cupy.asarray(wrong)
    )
    with pytest.raises(ValueError, match="contiguous arrays of one type"):
        adam.Update()([(*group, strided)], settings)


# ---------------------------------------------------------------- planted faults


def check_all_rows(cupy, *checks):
    for shape in [(2, 27, 33, 3), (3, 5, 5, 70), (1601, 50), (2, 4, 3, 515)]:
        for check in checks:
            check(cupy, shape)


def check_file(cupy, file):
    """Run all checks of the file's kernels on a few shapes."""
    match file:
        case "sums.cu":
            check_all_rows(cupy, check_sums)
        case "batch_norm.cu":
            check_all_rows(cupy, check_moments, check_normalize, check_batch_norm_gradient)
        case "losses.cu":
            check_all_rows(cupy, check_losses)
        case "max_pool.cu":
            for images in POOLED:
                check_max_pool(cupy, images)
        case "activation.cu":
            check_all_rows(cupy, check_activation)
        case "resample.cu":
            for images in IMAGES:
                check_resample(cupy, images, 2)
        case "adam.cu":
            check_adam(cupy)
        case "muon.cu":
            check_muon(cupy)
        case "average.cu":
            check_average(cupy)


# Of rows.cuh, which all sums share: barriers, uneven halves, channels and rows beyond the edge, the last block.
IN_ROWS = [
    ("    __syncthreads();  // the second half was written by other threads\n", ""),
    ("half = (count + 1) / 2", "half = count / 2"),
    ("threadIdx.y + half < count", "threadIdx.y < half"),
    ("threadIdx.y * blockDim.x + threadIdx.x", "threadIdx.y * blockDim.x"),
    ("blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
    ("rows + gridDim.x - 1", "rows"),
    ("c < C ? min(begin + each, rows) : 0", "min(begin + each, rows)"),
    ("c < C ? min(begin + each, rows) : 0", "c < C ? begin + each : 0"),
    ("if (threadIdx.y == 0 && c < C) parts", "if (threadIdx.y == 0) parts"),
    ("if (threadIdx.y == 0 && c < C) parts", "if (c < C) parts"),
    ("parts[(long long)blockIdx.x * C + c]", "parts[c]"),
    ("tickets + blockIdx.y", "tickets"),
    ("atomicInc(ticket, count - 1)", "atomicInc(ticket, ~0u)"),
    (
        "__syncthreads_or(mine && atomicInc(ticket, count - 1) == count - 1)",
        "mine && atomicInc(ticket, count - 1) == count - 1",
    ),
    ("if (!last_block(tickets + blockIdx.y, gridDim.x)) return false;", "last_block(tickets + blockIdx.y, gridDim.x);"),
    ("value = Value{};", ""),
    ("part = threadIdx.y; part <", "part = 0; part <"),
    ("part += blockDim.y", "part++"),
    ("return threadIdx.y == 0 && c < C;", "return c < C;"),
    ("return threadIdx.y == 0 && c < C;", "return threadIdx.y == 0;"),
]
FAULTS = [
    *(("sums.cu", *fault) for fault in IN_ROWS),
    ("sums.cu", "row += blockDim.y", "row++"),
    ("sums.cu", "ADD ? total[range.c] + sum : sum", "sum"),
    *(("batch_norm.cu", *IN_ROWS[i]) for i in (0, 1, 9, 15)),
    ("batch_norm.cu", "if (count == 0) return a;", ""),
    ("batch_norm.cu", "difference * difference * a.count * fraction", "difference * difference * fraction"),
    ("batch_norm.cu", "b.count / count", "a.count / count"),
    ("batch_norm.cu", "- origin - start", "- origin"),
    ("batch_norm.cu", "start = x[range.first * C + range.c] - origin", "start = -origin"),
    ("batch_norm.cu", "square - sum * mean", "square"),
    ("batch_norm.cu", "range.end - range.first + blockDim.y - 1", "range.end - range.first"),
    ("batch_norm.cu", "x[range.c] + moments.mean", "moments.mean"),
    ("batch_norm.cu", "moments.square / moments.count", "moments.square / (moments.count - 1)"),
    ("batch_norm.cu", "running_mean && range.first == 0", "running_mean"),
    ("batch_norm.cu", "rate * (mean_c - running_mean[range.c])", "rate * mean_c"),
    ("batch_norm.cu", "rate * (variance_c - running_variance[range.c])", "rate * variance_c"),
    ("batch_norm.cu", "scale(gamma / sqrt(variance + epsilon))", "scale(gamma / sqrt(variance))"),
    ("batch_norm.cu", "shift(beta - mean * scale)", "shift(beta)"),
    ("batch_norm.cu", "count == 1 ? 0 : c", "c"),
    ("batch_norm.cu", "count == 1 ? 0 : c", "0"),
    ("batch_norm.cu", "!present || value > 0", "value > 0"),
    ("batch_norm.cu", "value *= activation.slope", "value = 0"),
    ("batch_norm.cu", "shortcut ? value + shortcut[i] : value", "value"),
    ("batch_norm.cu", "gradient *= activation.slope;\n      own", "gradient = 0;\n      own"),
    ("batch_norm.cu", "gradient *= activation.slope;\n    dx", "gradient = 0;\n    dx"),
    ("batch_norm.cu", "dslope = gradient * affine(value), ", ""),
    ("batch_norm.cu", "slope_grad[range.c] += own.dslope", "slope_grad[range.c] = own.dslope"),
    ("batch_norm.cu", "sums[C + range.c] = own.dy_normal", "sums[C + range.c] = own.dy"),
    ("batch_norm.cu", "gamma_grad[range.c] += own.dy_normal", "gamma_grad[range.c] = own.dy_normal"),
    ("batch_norm.cu", "beta_grad[range.c] += own.dy,", "beta_grad[range.c] += own.dy_normal,"),
    ("batch_norm.cu", "- mean_dy", ""),
    ("batch_norm.cu", "(value - mean_c) * steepness", "value * steepness"),
    ("batch_norm.cu", "inverse_std * sums[C + range.c] / n", "inverse_std * sums[C + range.c]"),
    ("batch_norm.cu", "gamma[range.c] * inverse_std;", "gamma[range.c];"),
    ("activation.cu", "row += blockDim.y", "row++"),
    ("activation.cu", "slope_grad[range.c] += sum", "slope_grad[range.c] = sum"),
    ("activation.cu", "value > 0 ? value : a * value", "value > 0 ? value : value"),
    ("activation.cu", "slope[slopes == 1 ? 0 : range.c]", "slope[0]"),
    ("activation.cu", "slope[slopes == 1 ? 0 : range.c]", "slope[range.c]"),
    ("activation.cu", "positive = value > 0", "positive = value >= 0"),
    ("activation.cu", "positive ? 0 : gradient * value", "positive ? gradient * value : 0"),
    ("activation.cu", "if (!slope_grad) return;", ""),
    ("losses.cu", "i += blockDim.y", "i++"),
    ("losses.cu", "difference * (REAL(2) / count)", "difference / count"),
    ("losses.cu", "*loss = sum / count", "*loss = sum"),
    ("losses.cu", "(logit > 0 ? logit : 0)", "logit"),
    ("losses.cu", "- logit * label", ""),
    ("losses.cu", "log1p(exp(-size))", "log(exp(-size))"),
    ("losses.cu", "(sigmoid(logit) - label)", "(sigmoid(logit) + label)"),
    ("losses.cu", "tanh(REAL(0.5) * y) + REAL(0.5)", "tanh(REAL(0.5) * y)"),
    ("losses.cu", "*mean = sum / count", "*mean = sum"),
    ("max_pool.cu", "|| value != value", ""),
    ("max_pool.cu", "if (first) gradient = 0;", ""),
    ("max_pool.cu", "first ? gradient : 0", "gradient"),
    ("max_pool.cu", "c < C ? W / 2 : 0", "W / 2"),
    ("max_pool.cu", "c < C ? W / 2 : 0", "c < C ? (W + 1) / 2 : 0"),
    ("max_pool.cu", "(long long)n * H + 2 * p", "(long long)n * (H / 2) * 2 + 2 * p"),
    ("max_pool.cu", "2 * q + i % 2", "2 * q + i / 2"),
    ("max_pool.cu", "q += blockDim.y", "q += W"),
    ("max_pool.cu", "blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
    ("resample.cu", "if (row.k >= K) return;", ""),
    ("resample.cu", "w += blockDim.y", "w += W"),
    ("resample.cu", "w < W", "w <= W"),
    ("resample.cu", "blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
    ("resample.cu", "((long long)blockIdx.x * FACTOR + i) * W + w", "((long long)blockIdx.x * FACTOR + w) * W + i"),
    ("resample.cu", "cell.at[i * FACTOR + j];", "cell.at[j * FACTOR + i];"),
    ("resample.cu", "cell.at[i * FACTOR + j] = ", "cell.at[j * FACTOR + i] = "),
    ("resample.cu", "sum += dy", "sum = dy"),
    ("adam.cu", "i < piece.count", "i <= piece.count"),
    ("adam.cu", "i += blockDim.x", "i += piece.count"),
    ("adam.cu", "one_minus_beta2 * (g * g - v)", "one_minus_beta2 * g * g - v"),
    ("adam.cu", "sqrt(v) + epsilon", "sqrt(v + epsilon)"),
    ("adam.cu", "sqrt(v) + epsilon", "sqrt(v)"),
    ("adam.cu", "piece.gradient[i] = 0;", ""),
    ("adam.cu", "piece.v[i] = v;", ""),
    ("adam.cu", "one_minus_beta1 * (g - m)", "one_minus_beta2 * (g - m)"),
    ("average.cu", "i < piece.count", "i + 1 < piece.count"),
    ("average.cu", "rate * (piece.value[i] - piece.average[i])", "rate * piece.value[i]"),
    ("muon.cu", "momentum * piece.m[i] + g", "piece.m[i] + g"),
    ("muon.cu", "x = g + momentum * m", "x = m"),
    ("muon.cu", "piece.gradient[i] = 0, ", ""),
    ("muon.cu", "    __syncthreads();  // the second half was written by other threads\n", ""),
    ("muon.cu", "piece.first_part + part", "part"),
    ("muon.cu", "part < piece.part_count", "part < 1"),
    ("muon.cu", "i < piece.count", "i + 1 < piece.count"),  # writes beyond a pointer's memory would end the test run
    ("muon.cu", "sqrt((REAL)piece.longest_side)", "1"),
    ("muon.cu", "piece.y[i]", "piece.x[i]"),
    ("muon.cu", "row + i < rows && column + j < columns", "column + j < columns"),
    ("muon.cu", "row + i < rows && column + j < columns", "row + i < rows"),
    ("muon.cu", "    __syncthreads();  // the tiles are there\n", ""),
    ("muon.cu", "    __syncthreads();  // no thread still reads them\n", ""),
    ("muon.cu", "depth += TILE", "depth += of.depth"),
    ("muon.cu", "left[by_rows ? other : lane][k]", "left[lane][k]"),
    ("muon.cu", "if (i < of.rows && j < of.columns)", "if (i + 1 < of.rows && j < of.columns)"),
    ("muon.cu", "alpha * (of.d.at ? of.d(i, j) : 0)", "(of.d.at ? of.d(i, j) : 0)"),
]  # fmt: skip


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}: {fault[1]} -> {fault[2]}".replace("\n", " "))
def test_planted_faults_are_found(cupy, monkeypatch, fault):
    file, text, replacement = fault
    plant(monkeypatch, file, text, replacement)
    with pytest.raises((AssertionError, runner.CudaError)) as found:
        for turns in runner.ORDERS:
            with runner.order(turns):
                check_file(cupy, file)
    assert "g++" not in str(found.value), "this fault doesn't compile"


@pytest.mark.cpu_only
@pytest.mark.parametrize("file", ["sums.cu", "batch_norm.cu", "activation.cu", "resample.cu", "losses.cu", "muon.cu"])
def test_there_are_no_races(cupy, file):
    with runner.watching():
        check_file(cupy, file)
