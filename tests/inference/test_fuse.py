"""The fused net equals the generator; each rewriting is also tested alone, and faults in them are detected."""

import itertools

import numpy as np
import pytest

from tinysrgan import ops
from tinysrgan.inference import fuse as fusing
from tinysrgan.inference.fuse import (
    DepthToSpace,
    FusedConv,
    FusedGenerator,
    absorb_norm,
    before_nearest,
    before_shuffle,
    cells_first,
    fuse,
)
from tinysrgan.layers import BatchNorm, Conv2D, Layer, PixelShuffle, PReLU, Sequential, Upsample
from tinysrgan.models import Generator
from tinysrgan.ops.conv import dispatch

CONFIGS = [
    {"scale": scale, "upscale": upscale, "output": output}
    for scale, upscale, output in itertools.product((2, 4, 8), ("shuffle", "nearest"), ("linear", "tanh"))
] + [{"blocks": 0}, {"value_range": "unit:bytes", "output": "sigmoid"}, {"value_range": "bytes:unit"}]
SIZES = [(1, 1), (2, 3), (7, 5), (20, 17)]
configs = pytest.mark.parametrize("config", CONFIGS, ids=str)


def randomised(net: Layer, seed: int = 0) -> Layer:
    """Convert to float64 and eval mode; move every parameter and running statistic off its neutral value."""
    rng = np.random.default_rng(seed)
    for tensor in net.tensors().values():
        tensor.value = tensor.value + rng.uniform(0.1, 0.5, tensor.value.shape) * rng.choice([-1, 1])
        if (tensor.value < 0).all():
            tensor.value = -tensor.value
    for layer in net.layers():
        if isinstance(layer, PReLU):
            layer.slope.value = rng.uniform(-0.5, 1.5, layer.slope.value.shape)
        if isinstance(layer, Conv2D):
            layer.w.value = rng.uniform(-1, 1, layer.w.value.shape) / layer.w.value[..., 0].size ** 0.5
            layer.b.value = rng.uniform(-1, 1, layer.b.value.shape)
    return net.astype(np.float64).eval()


def generator(config: dict) -> Generator:
    return randomised(Generator(**{"blocks": 2, "filters": 4} | config))


def image(*size: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, *size, channels))


def error(y: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to the largest value."""
    assert y.shape == expected.shape and y.dtype == expected.dtype
    return float(np.abs(y - expected).max() / np.abs(expected).max())


def worst_error(config: dict) -> float:
    net = generator(config)
    fused = fuse(net)
    return max(error(fused.forward(image(*size)), net.forward(image(*size))) for size in SIZES)


@configs
def test_the_fused_net_gives_the_generators_values(config):
    assert worst_error(config) < 1e-10


@configs
def test_in_float32_too(config):
    net = generator(config)
    expected = net.forward(image(20, 17))
    y = fuse(net.astype(np.float32)).forward(image(20, 17).astype(np.float32))
    assert y.dtype == np.float32
    assert error(y.astype(np.float64), expected) < 1e-5


@pytest.mark.parametrize("upscale", ["shuffle", "nearest"])
def test_in_float32_with_winograd(upscale):
    net = generator({"filters": 16, "upscale": upscale})
    x = image(33, 18)
    expected = net.forward(x)
    assert error(fuse(net.astype(np.float32)).forward(x.astype(np.float32)).astype(np.float64), expected) < 1e-5


@pytest.mark.parametrize("upscale, size", list(itertools.product(("shuffle", "nearest"), ((33, 18), (5, 4)))), ids=str)
def test_exact_and_winograd_agree(upscale, size):
    fused = fuse(generator({"filters": 16, "upscale": upscale}))
    y = fused.forward(image(*size))
    with ops.exact():
        assert error(y, fused.forward(image(*size))) < 1e-10


# ---------------------------------------------------------------- each identity


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_before_shuffle(size, shape):
    layer = randomised(Conv2D(3, 2, size))
    x = image(*shape, channels=12)
    expected = layer.forward(DepthToSpace().forward(x))
    below = before_shuffle(FusedConv(layer.w.value, layer.b.value))
    assert error(DepthToSpace().forward(below.forward(x)), expected) < 1e-12


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_before_nearest(size, shape):
    layer = randomised(Conv2D(3, 2, size))
    slope = np.array([0.3, 2.0])
    net = Sequential(Upsample(2), layer, PReLU(2))
    net["2"].slope.value = slope
    below = before_nearest(FusedConv(layer.w.value, layer.b.value, slope))
    x = image(*shape)
    assert error(DepthToSpace().forward(below.forward(x)), net.eval().forward(x)) < 1e-12


def test_filters_shrink_as_the_resolution_halves():
    w = np.ones((9, 9, 2, 3))
    conv = FusedConv(w, np.ones(3))
    assert before_shuffle(conv).w.value.shape == (5, 5, 8, 12)
    assert before_nearest(conv).w.value.shape == (5, 5, 2, 12)
    assert before_nearest(FusedConv(np.ones((3, 3, 2, 3)), np.ones(3))).w.value.shape == (3, 3, 2, 12)


def test_absorb_norm():
    conv, norm = randomised(Conv2D(3, 4, 3)), randomised(BatchNorm(4))
    expected = norm.forward(conv.forward(image(4, 5)))
    assert error(FusedConv(*absorb_norm(conv.w.value, conv.b.value, norm)).forward(image(4, 5)), expected) < 1e-12


def test_cells_first():
    x = image(3, 4, channels=12)
    assert (DepthToSpace().forward(cells_first(x)) == PixelShuffle(2).forward(x)).all()
    cell = DepthToSpace().forward(np.arange(8.0).reshape(1, 1, 1, 8))  # two channels
    assert cell[0].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


@pytest.mark.parametrize("slope", [None, [0.2, -0.7, 1, 0.5, 0], [0.2, 1.7, 3, -1, 1]], ids=str)
@pytest.mark.parametrize("shape", [(33, 18), (6, 5)], ids=str)
@pytest.mark.parametrize("inputs", [4, 120])  # 120 x 5 channels suffice for Winograd if the image is large enough
def test_fused_conv(inputs, shape, slope):
    layer = randomised(Conv2D(inputs, 5, 3))
    x, shortcut = image(*shape, channels=inputs), image(*shape, channels=5)
    expected = layer.forward(x)
    if slope:
        expected = np.where(expected < 0, expected * slope, expected)
    fused = FusedConv(layer.w.value, layer.b.value, slope and np.array(slope))
    assert error(fused.forward(x), expected) < 1e-12
    assert error(fused.forward(x, shortcut), expected + shortcut) < 1e-12


@pytest.mark.parametrize(
    "shape, inputs, way", [((33, 18), 4, "im2col_blocked"), ((33, 18), 120, "winograd"), ((6, 5), 4, "im2col")]
)
def test_which_ways_these_were(shape, inputs, way):
    assert dispatch.choose(image(*shape, channels=inputs), (3, 3, inputs, 5), 1) == way


# ---------------------------------------------------------------- the fused net


def test_no_batch_norm_and_no_nearest_enlargement_is_left():
    for upscale in ("shuffle", "nearest"):
        layers = fuse(Generator(2, 4, 8, upscale)).layers()
        assert not any(isinstance(layer, BatchNorm | PReLU | Upsample | PixelShuffle | Conv2D) for layer in layers)


def test_the_generator_is_left_alone():
    net = generator({"output": "tanh"}).train()
    before = {name: tensor.value.copy() for name, tensor in net.tensors().items()}
    fused = fuse(net)
    y = fused.forward(image(5, 4))
    assert all(layer.training for layer in net.layers())
    for name, tensor in net.tensors().items():
        assert (tensor.value == before[name]).all()
        tensor.value += 1  # training updates in place
    assert (fused.forward(image(5, 4)) == y).all()
    assert isinstance(fused, FusedGenerator) and fused.scale == 4


def test_converted_weights_are_used():
    fused = fuse(generator({"filters": 16}))
    x = image(17, 18)
    y = fused.forward(x)
    y32 = fused.astype(np.float32).forward(x.astype(np.float32))
    assert y32.dtype == np.float32 and 0 < error(y32.astype(np.float64), y) < 1e-5


# ---------------------------------------------------------------- planted faults


def epsilon_forgotten(w, b, norm):
    s = norm.gamma.value / norm.running_variance.value**0.5
    return w * s, (b - norm.running_mean.value) * s + norm.beta.value


def bias_not_scaled(w, b, norm):
    return absorb_norm(w, b, norm)[0], b - norm.running_mean.value + norm.beta.value


def tap_in_the_wrong_phase(conv):
    fused = before_shuffle(conv)
    w = fused.w.value
    k = w.shape[3] // 4
    w[0, 0, :, :k], w[0, 0, :, k : 2 * k] = w[0, 0, :, k : 2 * k].copy(), w[0, 0, :, :k].copy()
    return fused


def one_pixel_off(conv):
    fused = before_shuffle(conv)
    fused.w.value = np.roll(fused.w.value, 1, axis=1)
    return fused


def slopes_not_repeated(conv):
    fused = before_nearest(conv)
    if fused.slope is not None:
        fused.slope.value = np.repeat(fused.slope.value[: len(fused.slope.value) // 4], 4)
    return fused


def one_cell_corner_left_out(conv):
    fused = before_shuffle(conv)
    w = fused.w.value
    fused.w.value = w.reshape(*w.shape[:2], 4, -1, w.shape[3])[:, :, :3].sum(axis=2)
    return fused


@pytest.mark.parametrize(
    "name, fault, config",
    [
        ("absorb_norm", epsilon_forgotten, {}),
        ("absorb_norm", bias_not_scaled, {}),
        ("cells_first", lambda values: values, {}),
        ("before_shuffle", tap_in_the_wrong_phase, {}),
        ("before_shuffle", one_pixel_off, {"scale": 2}),
        ("before_nearest", slopes_not_repeated, {"upscale": "nearest"}),
        ("before_nearest", one_cell_corner_left_out, {"upscale": "nearest", "scale": 2}),
    ],
)
def test_faults_show(name, fault, config, monkeypatch):
    monkeypatch.setattr(fusing, name, fault)
    assert worst_error(config) > 1e-6
