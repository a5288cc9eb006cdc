"""Each layer on examples that are small enough to compute by hand."""

import warnings

import numpy as np
import pytest

from tinysrgan.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool,
    PixelShuffle,
    PReLU,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    Upsample,
)
from tinysrgan.layers.initializers import fan_in_uniform, glorot_uniform, icnr


def image(rows):
    """An image with one channel, (1, H, W, 1), from its rows."""
    return np.array(rows, np.float64)[None, :, :, None]


def rows(x):
    """The rows of an image with one channel."""
    return x[0, :, :, 0].tolist()


def input_gradient(layer, x, dy):
    """dx of one forward and one backward pass."""
    layer.astype(np.float64).forward(np.asarray(x, np.float64))
    return layer.backward(np.asarray(dy, np.float64))


# ---------------------------------------------------------------- convolution


def convolution(kernel, stride=1, bias=0.0):
    layer = Conv2D(1, 1, len(kernel), stride).astype(np.float64)
    layer.w.value[..., 0, 0] = kernel
    layer.b.value[:] = bias
    return layer


ONES = [[1, 1, 1]] * 3


def test_convolution_does_not_flip_the_kernel():
    """It is a cross-correlation, as in every deep-learning library: the top left weight sees the top left pixel."""
    top_left = [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert rows(convolution(top_left).forward(x)) == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]


def test_convolution_pads_with_zeros():
    x = image([[1, 2, 3], [4, 5, 6]])
    assert rows(convolution(ONES, bias=0.5).forward(x)) == [[12.5, 21.5, 16.5], [12.5, 21.5, 16.5]]


def test_stride_2_on_an_even_size_pads_only_after_the_image():
    """The receptive fields are columns 0 1 2 and 2 3 plus one zero. With PyTorch's padding=1 they would be a zero
    plus 0 1, and 1 2 3."""
    row = [[1, 10, 100, 1000]]
    assert rows(convolution(ONES, stride=2).forward(image(row * 4))) == [[333, 3300], [222, 2200]]


def test_stride_2_on_an_odd_size_pads_on_both_sides():
    row = [[1, 10, 100, 1000, 10000]]
    assert rows(convolution(ONES, stride=2).forward(image(row))) == [[11, 1110, 11000]]


@pytest.mark.parametrize(("size", "stride", "output_size"), [(6, 1, 6), (6, 2, 3), (7, 2, 4), (1, 2, 1), (7, 3, 3)])
def test_output_size_is_input_size_over_stride_rounded_up(size, stride, output_size):
    y = Conv2D(2, 5, 3, stride).forward(np.zeros((3, size, 4, 2), np.float32))
    assert y.shape == (3, output_size, -(-4 // stride), 5)


def test_convolution_1x1_multiplies_channels_by_the_weights():
    layer = Conv2D(2, 3, 1).astype(np.float64)
    layer.w.value[0, 0] = [[1, 0, 2], [0, 1, 3]]
    layer.b.value[:] = [0, 100, 0]
    assert layer.forward(np.array([[[[5.0, 7.0]]]])).tolist() == [[[[5, 107, 31]]]]


def test_gradients_of_a_convolution():
    """For x = [a b c] and the kernel [1 2 3] along the row, y = [2a + 3b, a + 2b + 3c, b + 2c] + bias."""
    layer = convolution([[0, 0, 0], [1, 2, 3], [0, 0, 0]])
    a, b, c = 5, 7, 11
    assert rows(layer.forward(image([[a, b, c]]))) == [[2 * a + 3 * b, a + 2 * b + 3 * c, b + 2 * c]]
    dx = layer.backward(image([[1, 10, 100]]))
    assert rows(dx) == [[2 + 10, 3 + 20 + 100, 30 + 200]]
    assert layer.w.grad[1, :, 0, 0].tolist() == [10 * a + 100 * b, a + 10 * b + 100 * c, b + 10 * c]
    assert not layer.w.grad[[0, 2]].any(), "the rows above and below are padding"
    assert layer.b.grad.tolist() == [111]


# ---------------------------------------------------------------- dense, flatten


def test_dense():
    layer = Dense(2, 3).astype(np.float64)
    layer.w.value[...] = [[1, 2, 3], [4, 5, 6]]
    layer.b.value[:] = [10, 20, 30]
    assert layer.forward(np.array([[1.0, 0.0], [1.0, -1.0]])).tolist() == [[11, 22, 33], [7, 17, 27]]
    assert layer.backward(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])).tolist() == [[1, 4], [5, 11]]
    assert layer.w.grad.tolist() == [[1, 1, 1], [0, -1, -1]]
    assert layer.b.grad.tolist() == [1, 1, 1]


def test_flatten_orders_elements_by_row_then_column_then_channel():
    x = np.arange(24.0).reshape(2, 2, 3, 2)
    layer = Flatten()
    assert layer.forward(x).tolist() == [list(range(12)), list(range(12, 24))]
    assert layer.backward(layer.forward(x)).tolist() == x.tolist()


# ---------------------------------------------------------------- batch-norm


def test_batch_norm_normalizes_each_channel_then_applies_gamma_and_beta():
    layer = BatchNorm(2, epsilon=0).astype(np.float64)
    layer.gamma.value[:] = [1, 10]
    layer.beta.value[:] = [0, 100]
    x = np.array([[1.0, 50.0], [3.0, 70.0]])  # means 2 and 60, standard deviations 1 and 10
    assert layer.forward(x).tolist() == [[-1, 90], [1, 110]]


def test_running_statistics_move_by_one_minus_momentum():
    """The mean moves from 0 towards 4, the variance from 1 towards 9. The variance is biased: 9, not 18."""
    layer = BatchNorm(1, momentum=0.8).astype(np.float64)
    x = image([[1, 7]])
    layer.forward(x)
    np.testing.assert_allclose([layer.running_mean.value, layer.running_variance.value], [[0.8], [0.8 * 1 + 0.2 * 9]])
    layer.forward(x)
    np.testing.assert_allclose(
        [layer.running_mean.value, layer.running_variance.value], [[1.44], [0.8 * 2.6 + 0.2 * 9]]
    )


def test_in_eval_mode_batch_norm_uses_the_running_statistics():
    layer = BatchNorm(1, epsilon=0).astype(np.float64).eval()
    layer.running_mean.value[:] = 10
    layer.running_variance.value[:] = 4
    assert rows(layer.forward(image([[10, 12, 6]]))) == [[0, 1, -2]]


def test_batch_norm_of_a_constant_channel_is_finite():
    layer = BatchNorm(1)
    x = np.full((2, 3, 3, 1), 7, np.float32)
    np.testing.assert_allclose(layer.forward(x), 0, atol=1e-6)
    assert np.isfinite(layer.backward(x)).all()


def test_batch_norm_is_accurate_for_a_mean_far_from_zero():
    """The formula mean(x^2) - mean(x)^2 would lose all digits here: 1e8 - 1e8 in float32."""
    noise = np.random.default_rng(0).standard_normal((8, 16, 16, 1))
    y = BatchNorm(1, epsilon=0).forward((noise + 10_000).astype(np.float32))
    normal = (noise - noise.mean()) / noise.std()
    np.testing.assert_allclose(y, normal, atol=5e-3)  # float32 rounds 1e4 to 1e-3


def test_batch_norm_removes_a_constant_and_a_factor():
    x = np.random.default_rng(0).standard_normal((4, 3, 3, 2))
    layer = BatchNorm(2, epsilon=0).astype(np.float64)
    np.testing.assert_allclose(layer.forward(5 * x + 3), layer.forward(x), atol=1e-12)


# ---------------------------------------------------------------- activations


def test_relu():
    assert ReLU().forward(np.array([[-2.0, 0.0, 3.0]])).tolist() == [[0, 0, 3]]
    assert input_gradient(ReLU(), [[-2, 0, 3]], [[1, 1, 1]]).tolist() == [[0, 0, 1]]


def test_leaky_relu():
    np.testing.assert_allclose(LeakyReLU().forward(np.array([[-2.0, 0.0, 3.0]])), [[-0.4, 0, 3]])
    np.testing.assert_allclose(input_gradient(LeakyReLU(0.3), [[-2, 3]], [[10, 10]]), [[3, 10]])


def test_prelu_has_one_slope_per_channel_that_starts_at_a_quarter():
    layer = PReLU(2).astype(np.float64)
    assert layer.slope.value.tolist() == [0.25, 0.25]
    layer.slope.value[:] = [0.5, 0.25]
    x = np.full((2, 3, 4, 2), -4.0)
    y = layer.forward(x)
    assert (y[..., 0] == -2).all()
    assert (y[..., 1] == -1).all()
    dx = layer.backward(np.ones_like(x))
    assert (dx == [0.5, 0.25]).all()
    assert layer.slope.grad.tolist() == [-96, -96], "-4 for each of 2 x 3 x 4 pixels"


def test_prelu_with_slope_0_is_relu():
    x = np.array([[-1.0, 2.0]])
    assert PReLU(2, initial=0).astype(np.float64).forward(x).tolist() == [[0, 2]]


def test_prelu_slope_may_be_negative_or_above_1():
    layer = PReLU(3).astype(np.float64)
    layer.slope.value[:] = [-1, 1, 2]
    assert layer.forward(np.array([[-3.0, -3.0, -3.0], [3.0, 3.0, 3.0]])).tolist() == [[3, -3, -6], [3, 3, 3]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_tanh_accept_any_value_without_a_warning(dtype):
    x = np.array([[-np.inf, -1e30, -1e4, -100, 0, 100, 1e4, 1e30, np.inf]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer, low, middle in ((Sigmoid(), 0, 0.5), (Tanh(), -1, 0)):
            assert layer.forward(x).tolist() == [[low] * 4 + [middle] + [1] * 4]
            np.testing.assert_allclose(layer.backward(np.ones_like(x))[0, [0, 1, 2, 6, 7, 8]], 0)


def test_sigmoid_and_tanh_equal_their_definition():
    x = np.linspace(-5, 5, 11)[None]
    np.testing.assert_allclose(Sigmoid().forward(x), 1 / (1 + np.exp(-x)), rtol=1e-12)
    np.testing.assert_allclose(Tanh().forward(x), (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)), atol=1e-15)
    assert input_gradient(Sigmoid(), [[0]], [[8]]).tolist() == [[2]], "the derivative at 0 is 1/4"
    assert input_gradient(Tanh(), [[0]], [[8]]).tolist() == [[8]], "the derivative at 0 is 1"


# ---------------------------------------------------------------- shapes


def test_pixel_shuffle_turns_four_channels_into_a_2x2_cell():
    pixel = np.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 1, 4)
    assert rows(PixelShuffle(2).forward(pixel)) == [[0, 1], [2, 3]]


def test_pixel_shuffle_of_twelve_channels_into_red_green_and_blue():
    """Channels 0 to 3 become the red cell, 4 to 7 the green one, 8 to 11 the blue one. This is PyTorch's order.

    TensorFlow's depth_to_space would put channels 0, 1, 2 into the first pixel."""
    y = PixelShuffle(2).forward(np.arange(12.0).reshape(1, 1, 1, 12))
    assert y[0].tolist() == [[[0, 4, 8], [1, 5, 9]], [[2, 6, 10], [3, 7, 11]]]


def test_pixel_shuffle_of_two_pixels_side_by_side():
    x = np.array([[0, 1, 2, 3], [10, 11, 12, 13]], np.float64).reshape(1, 1, 2, 4)
    assert rows(PixelShuffle(2).forward(x)) == [[0, 1, 10, 11], [2, 3, 12, 13]]


def test_pixel_shuffle_by_three():
    assert rows(PixelShuffle(3).forward(np.arange(9.0).reshape(1, 1, 1, 9))) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_pixel_shuffle_backward_is_the_inverse_of_forward():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 12))
    layer = PixelShuffle(2)
    assert (layer.backward(layer.forward(x)) == x).all()


def test_upsample_repeats_every_pixel_and_sums_the_gradient():
    layer = Upsample(2)
    x = image([[1, 2], [3, 4]])
    assert rows(layer.forward(x)) == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    dy = image([[1, 10, 0, 0], [100, 1000, 0, 0], [0, 0, 0, 0], [0, 0, 0, 7]])
    assert rows(layer.backward(dy)) == [[1111, 0], [0, 7]]


def test_upsample_by_three():
    assert rows(Upsample(3).forward(image([[1, 2]]))) == [[1, 1, 1, 2, 2, 2]] * 3


def test_max_pool_takes_the_maximum_and_gives_it_the_whole_gradient():
    x = [[1, 2, -1, -2], [4, 3, -3, -4]]
    layer = MaxPool()
    assert rows(layer.forward(image(x))) == [[4, -1]]
    assert rows(layer.backward(image([[5, 7]]))) == [[0, 0, 7, 0], [5, 0, 0, 0]]


def test_max_pool_drops_an_odd_last_row_and_column():
    x = image([[1, 2, 99], [3, 4, 99], [99, 99, 99]])
    layer = MaxPool()
    assert rows(layer.forward(x)) == [[4]]
    assert rows(layer.backward(image([[5]]))) == [[0, 0, 0], [0, 5, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("cell", "routed"),
    [
        ([[7, 7], [7, 7]], [[5, 0], [0, 0]]),
        ([[1, 7], [7, 7]], [[0, 5], [0, 0]]),
        ([[1, 1], [7, 7]], [[0, 0], [5, 0]]),
        ([[7, 1], [1, 7]], [[5, 0], [0, 0]]),
    ],
)
def test_first_of_equal_maxima_gets_the_gradient(cell, routed):
    assert input_gradient(MaxPool(), image(cell), image([[5]]))[0, :, :, 0].tolist() == routed


# ---------------------------------------------------------------- containers


def test_sequential_applies_its_layers_in_order():
    double = convolution([[2]])
    net = Sequential(double, convolution([[1]], bias=1), convolution([[10]]))
    assert rows(net.forward(image([[3]]))) == [[70]]
    assert rows(net.backward(image([[1]]))) == [[20]]


def test_residual_adds_its_input():
    net = Residual(convolution([[2]], bias=1))
    assert rows(net.forward(image([[3]]))) == [[3 + 7]]
    assert rows(net.backward(image([[1]]))) == [[1 + 2]]


def test_empty_sequential_is_the_identity():
    x = image([[1, 2]])
    assert rows(Sequential().forward(x)) == [[1, 2]]
    assert rows(Sequential().backward(x)) == [[1, 2]]


def test_sequential_is_indexed_by_number_or_name():
    net = Sequential(ReLU(), Sequential(inner=Tanh()), last=Sigmoid())
    assert isinstance(net["0"], ReLU)
    assert isinstance(net["1"]["inner"], Tanh)
    assert [layer.path for layer in net.layers()] == ["", "0", "1", "1.inner", "last"]


# ---------------------------------------------------------------- initial values


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda rng: glorot_uniform((40, 60), rng), (6 / 100) ** 0.5),
        (lambda rng: fan_in_uniform((5, 5, 4, 20), rng), 0.1),
        (lambda rng: Dense(40, 60, rng=rng).w.value, (6 / 100) ** 0.5),
        (lambda rng: Conv2D(4, 20, 5, rng=rng).w.value, 0.1),
        (lambda rng: Conv2D(4, 80, 5, icnr_factor=2, rng=rng).w.value, 0.1),
    ],
)
def test_initial_weights_are_uniform_within_their_limit(make, limit):
    w = make(np.random.default_rng(0))
    assert w.dtype == np.float32
    assert 0.99 * limit < w.max() <= limit * (1 + 1e-6)
    assert 0.99 * limit < -w.min() <= limit * (1 + 1e-6)
    assert w.std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert abs(w.mean()) < 0.05 * limit


def test_same_seed_gives_the_same_weights():
    weights = [Conv2D(3, 4, 3, rng=np.random.default_rng(seed)).w.value for seed in (1, 1, 2)]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


def test_biases_start_at_zero_and_batch_norm_at_the_identity():
    assert not Conv2D(3, 4, 3).b.value.any()
    assert not Dense(3, 4).b.value.any()
    norm = BatchNorm(1)
    values = norm.gamma.value, norm.beta.value, norm.running_mean.value, norm.running_variance.value
    assert np.concatenate(values).tolist() == [1, 0, 0, 1]
    assert (norm.momentum, norm.epsilon) == (0.8, 1e-3)


@pytest.mark.parametrize("factor", [2, 3])
def test_icnr_starts_without_checkerboards(factor):
    """The first output of convolution and pixel shuffle is constant in every f x f cell."""
    conv = Conv2D(3, 5 * factor**2, 3, icnr_factor=factor, rng=np.random.default_rng(0))
    y = PixelShuffle(factor).forward(
        conv.forward(np.random.default_rng(1).standard_normal((1, 4, 4, 3)).astype(np.float32))
    )
    cells = y.reshape(4, factor, 4, factor, 5)
    np.testing.assert_allclose(cells, np.broadcast_to(cells[:, :1, :, :1], cells.shape), atol=1e-6)
    assert np.ptp(cells[:, 0, :, 0], axis=(0, 1)).min() > 0.1, "neighbouring cells must differ"


def test_initial_output_without_icnr_has_a_checkerboard():
    conv = Conv2D(3, 4, 3, rng=np.random.default_rng(0))
    cell = PixelShuffle(2).forward(conv.forward(np.ones((1, 1, 1, 3), np.float32)))
    assert np.ptp(cell) > 0.01


def test_icnr_repeats_the_weights_within_a_cell():
    w = icnr((3, 3, 2, 8), 2, np.random.default_rng(0))
    assert (w[..., :4] == w[..., :1]).all()
    assert (w[..., 4:] == w[..., 4:5]).all()
    assert (w[..., 0] != w[..., 4]).any()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Conv2D(3, 4, 3), (2, 5, 5, 4), r"Conv2D 'body\.3' takes \(N, H, W, 3\), not \(2, 5, 5, 4\)\."),
        (Conv2D(3, 4, 3), (5, 5, 3), r"Conv2D 'body\.3' takes \(N, H, W, 3\), not \(5, 5, 3\)\."),
        (Dense(3, 4), (2, 4), r"Dense 'body\.3' takes \(N, 3\), not \(2, 4\)\."),
        (Dense(3, 4), (2, 1, 1, 3), r"Dense 'body\.3' takes \(N, 3\), not \(2, 1, 1, 3\)\."),
        (PixelShuffle(2), (1, 2, 2, 6), r"PixelShuffle 'body\.3' needs channels divisible by 4, not 6\."),
    ],
)
def test_wrong_shape_raises_and_names_the_layer(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.label("body.3").forward(np.zeros(shape, np.float32))


def test_even_kernel_size_raises():
    with pytest.raises(ValueError, match="odd kernel size, not 4"):
        Conv2D(3, 4, 4)


wrong_channels = pytest.mark.parametrize(
    "layer", [PReLU(3), PReLU(9), BatchNorm(3), BatchNorm(9), Residual(Conv2D(6, 12, 3)), Residual(Conv2D(6, 6, 3, 2))]
)


@wrong_channels
@pytest.mark.parametrize("training", [True, False])
def test_wrong_channels_raise(layer, training):
    """Unchecked, they would silently give wrong results: elements of other channels, repeated or dropped."""
    with pytest.raises(ValueError):
        layer.train(training).forward(np.zeros((2, 4, 4, 6), np.float32))


@wrong_channels
def test_error_about_wrong_channels_names_the_layer(layer):
    with pytest.raises(ValueError, match=r"'body\.3'"):
        layer.label("body.3").forward(np.zeros((2, 4, 4, 6), np.float32))
