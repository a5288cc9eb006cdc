"""All kernels except convolution run on the CPU, compared with float64 and with the layers in NumPy.

Memory that a kernel does not write holds NaN, threads run in three orders, and the sizes leave remainders in every
block.
"""

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu, no_reading
from planted import plant

from tinysrgan import layers, ops
from tinysrgan.core.device import array_module
from tinysrgan.gradcheck.registry import LAYERS, example
from tinysrgan.layers import Parameter
from tinysrgan.ops.cuda import activation, adam, batch_norm, launch, resample, sums
from tinysrgan.optimizers.adam import Adam

pytestmark = pytest.mark.kernels

# Rows and channels: fewer rows than a block; remainders of rows in a thread, in a block and in the last part (1 of
# 1601); channels that leave threads idle; channels in several groups.
SHAPES = [(1, 1), (1000, 1), (2, 27, 33, 3), (5, 3, 13), (2, 9, 8, 64), (3, 5, 5, 70), (1601, 50), (19, 300)]
SHAPES += [(2, 4, 3, 515), (2, 2048)]
IMAGES = [(2, 3, 5, 3), (1, 4, 70, 5), (2, 2, 3, 301), (1, 1, 260, 1)]  # N H W K
FACTORS = [2, 3, 4]


@pytest.fixture
def cupy():
    with cupy_on_cpu() as cupy:
        yield cupy


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


def check_moments(cupy, shape, dtype=np.float32, mean=1000.0):
    x = values(*shape, dtype=dtype, mean=mean)
    with no_reading():
        found, variance = batch_norm.moments(cupy.asarray(x))
    assert found.dtype == variance.dtype == dtype
    close(found, over_rows(x).mean(axis=0), error=2e-7)
    close(variance, over_rows(x).var(axis=0))


def check_normalise(cupy, shape, dtype=np.float32):
    x, scale, shift = values(*shape, dtype=dtype), values(shape[-1], seed=1), values(shape[-1], seed=2)
    with no_reading():
        y = batch_norm.normalise(*on_device(cupy, x, scale.astype(dtype), shift.astype(dtype)))
    assert y.dtype == dtype
    close(y, x.astype(np.float64) * scale + shift)


def check_batch_norm_gradient(cupy, shape, dtype=np.float32):
    x, dy = values(*shape, dtype=dtype, mean=3), values(*shape, seed=1, dtype=dtype)
    vectors = [values(shape[-1], seed=seed, dtype=dtype) for seed in range(2, 6)]
    a, b, c, d = (vector.astype(np.float64) for vector in vectors)
    with no_reading():
        total = batch_norm.grad_sums(*on_device(cupy, dy, x, *vectors[:2]))
        dx = batch_norm.grad_input(*on_device(cupy, dy, x, *vectors))
    assert total.dtype == dx.dtype == dtype
    terms = np.stack([over_rows(dy), over_rows(dy) * (over_rows(x) - a) * b])
    close(total, terms.sum(axis=1), np.abs(terms).sum(axis=1).max())
    close(dx, a * (dy - b - (x.astype(np.float64) - c) * d))


def check_activation(cupy, shape, dtype=np.float32):
    x, dy = values(*shape, dtype=dtype), values(*shape, seed=1, dtype=dtype)
    x.reshape(-1)[::7] = 0
    for slope in (values(shape[-1], seed=2, dtype=dtype), np.full(1, 0.2, dtype)):
        a, b, c = on_device(cupy, x, dy, slope)
        with no_reading():
            y, dx = activation.leaky(a, c), activation.leaky_grad(a, b, c)
        np.testing.assert_array_equal(y.get(), np.where(x > 0, x, slope * x))
        np.testing.assert_array_equal(dx.get(), np.where(x > 0, dy, slope * dy))
        assert y.dtype == dx.dtype == dtype
    slope = values(shape[-1], seed=2, dtype=dtype)
    with no_reading():
        dx, grad = activation.prelu_grad(*on_device(cupy, x, dy, slope))
    np.testing.assert_array_equal(dx.get(), np.where(x > 0, dy, slope * dy))
    terms = over_rows(dy) * np.minimum(over_rows(x), 0)
    close(grad, terms.sum(axis=0), np.abs(terms).sum(axis=0).max())


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
            update(groups, beta1=0.5, beta2=0.999, rate=rate, epsilon=epsilon)
    for (name, p), (value, gradient, m, v) in zip(expected.parameters.items(), groups, strict=True):
        close(value, p.value.astype(np.float64))
        close(m, expected.m[name].astype(np.float64))
        close(v, expected.v[name].astype(np.float64))
        assert not gradient.get().any()
    assert all((margin.get() == 77).all() for margin in margins)


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "check", [check_sums, check_moments, check_normalise, check_batch_norm_gradient, check_activation]
)
def test_rows(cupy, any_order, check, shape):
    check(cupy, shape)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("images", IMAGES, ids=str)
def test_resample(cupy, any_order, images, factor):
    check_resample(cupy, images, factor)


def test_adam(cupy, any_order):
    check_adam(cupy)


def test_float64_stays_float64(cupy):
    for check in (check_sums, check_moments, check_normalise, check_batch_norm_gradient, check_activation):
        check(cupy, (3, 5, 5, 70), np.float64)
    check_resample(cupy, IMAGES[0], 2, np.float64)
    check_adam(cupy, np.float64)


def test_sums_do_not_depend_on_the_order_of_threads(cupy):
    x, dy, slope = on_device(cupy, values(40, 30, 3), values(40, 30, 3, seed=1), values(3))
    results = []
    for turns in runner.ORDERS:
        with runner.order(turns):
            total = batch_norm.grad_sums(dy, x, slope, slope)
            results.append(
                [sums.sum_per_channel(x), *batch_norm.moments(x), total, activation.prelu_grad(x, dy, slope)[1]]
            )
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a.get(), b.get())


def test_more_rows_than_the_largest_number_of_parts(cupy, monkeypatch):
    """The number of parts is limited, so threads process more rows if there are many."""
    for launcher in (batch_norm, sums, activation):
        monkeypatch.setattr(launcher, "PARTS", 3)
    shape = 25, 120, 3
    assert (launch.walk(cupy.empty(shape)).parts, launch.walk(cupy.empty(shape), 3).parts) == (5, 3)
    for check in (check_sums, check_moments, check_batch_norm_gradient, check_activation):
        check(cupy, shape)


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
    for result in (
        sums.sum_per_channel(a),
        *batch_norm.moments(a),
        batch_norm.grad_sums(a, cupy.ones(x.shape, np.float32), 0 * ones, ones)[0],
        activation.prelu_grad(-a, cupy.ones(x.shape, np.float32), ones)[1],
    ):
        assert np.isfinite(result.get()).tolist() == [True, False, False]
    assert np.isnan(activation.leaky(a, 0 * ones).get()).sum() == 1


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


def results(layer, x, dy_of):
    """Return y in both modes, dx, and all tensors and gradients after one forward and one backward pass."""
    y = layer.forward(x)
    found = {"y": y, "dx": layer.backward(dy_of(y)), "y in eval mode": layer.eval().forward(x)}
    found |= {name: tensor.value for name, tensor in layer.tensors().items()}
    return found | {f"d{name}": parameter.grad for name, parameter in layer.parameters().items()}


def test_batch_norm_equals_the_layer(cupy):
    """Compare the kernels' forward and backward with layers.BatchNorm."""
    x, dy = values(4, 9, 11, 5, mean=20), values(4, 9, 11, 5, seed=1)
    layer = layers.BatchNorm(5)
    layer.gamma.value[:], layer.beta.value[:] = values(5, seed=2), values(5, seed=3)
    y, dx = layer.forward(x), layer.backward(dy)
    a, b, scale, shift = on_device(cupy, x, dy, layer.gamma.value, layer.beta.value)
    mean, variance = batch_norm.moments(a)
    for result, expected in zip((mean, variance), ops.moments(x), strict=True):
        close(result, expected)
    inverse_std = 1 / (variance + layer.epsilon) ** 0.5
    close(batch_norm.normalise(a, scale * inverse_std, shift - mean * scale * inverse_std), y, error=1e-5)
    sum_dy, sum_dy_normal = batch_norm.grad_sums(b, a, mean, inverse_std)
    close(sum_dy, layer.beta.grad)
    close(sum_dy_normal, layer.gamma.grad)
    n = np.float32(x.size // 5)
    vectors = scale * inverse_std, sum_dy / n, mean, inverse_std * sum_dy_normal / n
    close(batch_norm.grad_input(b, a, *vectors), dx)


def test_activations_equal_the_layers(cupy):
    x, dy = values(4, 9, 11, 5), values(4, 9, 11, 5, seed=1)
    learnt, fixed = layers.PReLU(5, 0.3), layers.LeakyReLU(0.2)
    for layer, slope in ((learnt, learnt.slope.value), (fixed, np.full(1, 0.2, np.float32))):
        a, b, c = on_device(cupy, x, dy, slope)
        close(activation.leaky(a, c), layer.forward(x), error=1e-7)
        close(activation.leaky_grad(a, b, c), layer.backward(dy), error=1e-7)
    close(activation.prelu_grad(*on_device(cupy, x, dy, learnt.slope.value))[1], learnt.slope.grad)


# ---------------------------------------------------------------- Adam's table


def test_adam_s_table_is_cached_until_the_arrays_change(cupy, monkeypatch):
    made = []
    monkeypatch.setattr(adam, "table", lambda groups, make=adam.table: made.append(1) or make(groups))
    group = tuple(cupy.ones(5, np.float32) for _ in range(4))
    update, options = adam.Update(), {"beta1": 0.9, "beta2": 0.999, "rate": 0.1, "epsilon": 1e-7}
    update([group], **options)
    update([group], **options)
    assert len(made) == 1
    moved = (cupy.ones(5, np.float32), *group[1:])
    before = group[0].get()
    group[1][...] = 1
    update([moved], **options)
    assert len(made) == 2
    np.testing.assert_array_equal(group[0].get(), before)
    assert (moved[0].get() < 1).all()
    update([moved, tuple(cupy.ones(3, np.float32) for _ in range(4))], **options)
    assert len(made) == 3
    adam.Update()([], **options)


@pytest.mark.parametrize("wrong", [np.ones(4, np.float32), np.ones(5), np.ones((5, 2), np.float32)[:, 0]], ids=repr)
def test_adam_refuses_unsuitable_arrays(cupy, wrong):
    group = [cupy.ones(5, np.float32) for _ in range(3)]
    strided = (
        cupy.ones((5, 2), np.float32)[:, 0]
        if wrong.strides == (8,) and wrong.dtype == np.float32
        else cupy.asarray(wrong)
    )
    with pytest.raises(ValueError, match="contiguous arrays of one type"):
        adam.Update()([(*group, strided)], beta1=0.9, beta2=0.999, rate=0.1, epsilon=1e-7)


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
            check_all_rows(cupy, check_moments, check_normalise, check_batch_norm_gradient)
        case "activation.cu":
            check_all_rows(cupy, check_activation)
        case "resample.cu":
            for images in IMAGES:
                check_resample(cupy, images, 2)
        case "adam.cu":
            check_adam(cupy)


# Faults common to the three files that sum over rows: barriers, odd halves, channels and rows beyond the edge.
OF_SUMS = [
    ("__syncthreads();", ""),
    ("half = (count + 1) / 2", "half = count / 2"),
    ("threadIdx.y + half < count", "threadIdx.y < half"),
    ("threadIdx.y * blockDim.x + threadIdx.x", "threadIdx.y * blockDim.x"),
    ("blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
    ("row += blockDim.y", "row++"),
    ("rows + gridDim.x - 1", "rows"),
]
FAULTS = [
    *(("sums.cu", *fault) for fault in OF_SUMS),
    ("sums.cu", "c < C ? min(begin + each, rows) : 0", "min(begin + each, rows)"),
    ("sums.cu", "c < C ? min(begin + each, rows) : 0", "c < C ? begin + each : 0"),
    ("sums.cu", "threadIdx.y == 0 && range.c < C", "threadIdx.y == 0"),
    ("sums.cu", "threadIdx.y == 0 && range.c < C", "range.c < C"),
    ("sums.cu", "(long long)blockIdx.x * C + range.c", "range.c"),
    *(("batch_norm.cu", *fault) for fault in OF_SUMS),
    ("batch_norm.cu", "c < C ? min(begin + each, rows) : 0", "min(begin + each, rows)"),
    ("batch_norm.cu", "c < C ? min(begin + each, rows) : 0", "c < C ? begin + each : 0"),
    ("batch_norm.cu", "if (count == 0) return a;", ""),
    ("batch_norm.cu", "difference * difference * a.count * fraction", "difference * difference * fraction"),
    ("batch_norm.cu", "b.count / count", "a.count / count"),
    ("batch_norm.cu", "- origin - start", "- origin"),
    ("batch_norm.cu", "start = x[range.first * C + range.c] - origin", "start = -origin"),
    ("batch_norm.cu", "square - sum * mean", "square"),
    ("batch_norm.cu", "range.end - range.first + blockDim.y - 1", "range.end - range.first"),
    ("batch_norm.cu", "x[range.c] + moments.mean", "moments.mean"),
    ("batch_norm.cu", "moments.square / moments.count", "moments.square / (moments.count - 1)"),
    ("batch_norm.cu", "(2 * (long long)blockIdx.x + 1) * C", "C"),
    ("batch_norm.cu", "- mean_dy_c", ""),
    ("batch_norm.cu", "(x[i] - mean_c) * slope_c", "x[i] * slope_c"),
    ("batch_norm.cu", "if (threadIdx.y || range.c >= C) return;\n  mean", "if (threadIdx.y) return;\n  mean"),
    ("batch_norm.cu", "if (threadIdx.y || range.c >= C) return;\n  parts", "if (threadIdx.y) return;\n  parts"),
    *(("activation.cu", *fault) for fault in OF_SUMS),
    ("activation.cu", "c < C ? min(begin + each, rows) : 0", "min(begin + each, rows)"),
    ("activation.cu", "value > 0 ? value : a * value", "value > 0 ? value : value"),
    ("activation.cu", "slope[slopes == 1 ? 0 : range.c]", "slope[0]"),
    ("activation.cu", "slope[slopes == 1 ? 0 : range.c]", "slope[range.c]"),
    ("activation.cu", "positive = value > 0", "positive = value >= 0"),
    ("activation.cu", "positive ? 0 : gradient * value", "positive ? gradient * value : 0"),
    ("activation.cu", "if (!parts) return;", ""),
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
@pytest.mark.parametrize("file", ["sums.cu", "batch_norm.cu", "activation.cu", "resample.cu"])
def test_there_are_no_races(cupy, file):
    with runner.watching():
        check_file(cupy, file)
