"""The readable convolutions: ``naive`` against results computed by hand, ``im2col`` against ``naive``.

tests/ops/test_fast_ops.py compares the fast implementations with these.
"""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinysrgan import ops
from tinysrgan.ops.conv import im2col, naive
from tinysrgan.ops.conv.padding import same

# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    ("length", "size", "stride", "expected"),
    [
        (5, 3, 1, (5, 1, 1)),
        (128, 9, 1, (128, 4, 4)),
        (128, 3, 2, (64, 0, 1)),  # even: only after
        (7, 3, 2, (4, 1, 1)),
        (6, 2, 1, (6, 0, 1)),  # an odd zero goes after
        (1, 3, 2, (1, 1, 1)),
        (6, 1, 2, (3, 0, 0)),  # the window ends before the image does
        (7, 5, 3, (3, 2, 2)),
    ],
)
def test_same_padding_as_in_keras(length, size, stride, expected):
    assert same(length, size, stride) == expected


@given(st.integers(1, 300), st.integers(1, 11), st.integers(1, 4))
def test_every_window_lies_inside_the_padded_axis(length, size, stride):
    out, before, after = same(length, size, stride)
    assert out == -(-length // stride)
    assert 0 <= before <= after <= before + 1
    last = (out - 1) * stride + size
    assert last <= length + before + after, "the last window reaches beyond the padding"
    assert after == 0 or last == length + before + after, "there is more padding than the windows need"


# ---------------------------------------------------------------- the four loops


def test_six_loops_by_hand():
    """One row [a b c d], one filter [u v w], stride 1 and 2; u sees the left neighbour."""
    a, b, c, d = 2.0, 3.0, 5.0, 7.0
    u, v, w = 11.0, 13.0, 17.0
    x = np.array([a, b, c, d]).reshape(1, 1, 4, 1)
    taps = np.array([u, v, w]).reshape(1, 3, 1, 1)
    row = [v * a + w * b, u * a + v * b + w * c, u * b + v * c + w * d, u * c + v * d]
    assert naive.conv2d(x, taps).ravel().tolist() == row
    assert naive.conv2d(x, taps, 2).ravel().tolist() == [u * a + v * b + w * c, u * c + v * d]

    dy = np.array([1.0, 10.0]).reshape(1, 1, 2, 1)
    dx = naive.conv2d_grad_input(dy, taps, x.shape, 2)
    assert dx.ravel().tolist() == [u, v, w + 10 * u, 10 * v]
    dw = naive.conv2d_grad_weight(x, dy, taps.shape, 2)
    assert dw.ravel().tolist() == [a + 10 * c, b + 10 * d, c]


def test_six_loops_equal_the_formula_in_their_docstring():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 5, 3)), rng.standard_normal((3, 3, 3, 2))
    padded = np.pad(x, ((0, 0), (0, 1), (1, 1), (0, 0)))  # stride 2: 4 rows pad after, 5 columns on both sides
    y = naive.conv2d(x, w, 2)
    assert y.shape == (2, 2, 3, 2)
    for n, p, q, k in np.ndindex(y.shape):
        window = padded[n, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3]
        assert y[n, p, q, k] == pytest.approx((window * w[..., k]).sum(), rel=1e-12)


# ---------------------------------------------------------------- one matrix product


@st.composite
def problems(draw):
    """x, w, dy and stride of a convolution in float64; sizes 1 to 9 with filters of 1 to 5, even ones too."""
    size, channels = st.integers(1, 9), st.integers(1, 4)
    n, h, width = draw(st.integers(1, 3)), draw(size), draw(size)
    r, s = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    c, k, stride = draw(channels), draw(channels), draw(st.integers(1, 3))
    return problem(n, h, width, c, k, r, s, stride, draw(st.integers(0, 2**16)))


def problem(n, h, width, c, k, r, s, stride, seed=0):
    rng = np.random.default_rng(seed)
    p, q = -(-h // stride), -(-width // stride)
    shapes = (n, h, width, c), (r, s, c, k), (n, p, q, k)
    return *(rng.standard_normal(shape) for shape in shapes), stride


def three_results(module, x, w, dy, stride):
    return (
        module.conv2d(x, w, stride),
        module.conv2d_grad_input(dy, w, x.shape, stride),
        module.conv2d_grad_weight(x, dy, w.shape, stride),
    )


def assert_equal(results, truths):
    for name, result, truth in zip(("y", "dx", "dw"), results, truths, strict=True):
        assert result.shape == truth.shape, name
        np.testing.assert_allclose(result, truth, rtol=0, atol=1e-10 * max(1, abs(truth).max()), err_msg=name)


@pytest.mark.parametrize("module", [im2col, ops])
@given(problems())
@example(problem(2, 1, 1, 3, 2, 3, 3, 2))
@example(problem(1, 2, 3, 3, 8, 9, 9, 1))
@example(problem(1, 12, 11, 16, 3, 9, 9, 1))
@example(problem(1, 8, 8, 4, 6, 3, 3, 2))
@example(problem(2, 17, 20, 24, 24, 3, 3, 1))
@settings(max_examples=120, deadline=None)
def test_y_dx_and_dw_equal_those_of_the_six_loops(module, problem):
    assert_equal(three_results(module, *problem), three_results(naive, *problem))


@given(problems())
@settings(max_examples=60, deadline=None)
def test_both_gradients_are_adjoints_of_the_convolution(problem):
    """<conv(x, w), dy> = <x, dx> = <w, dw>: y is linear in x and in w, and each gradient is the adjoint map."""
    x, w, dy, stride = problem
    y, dx, dw = three_results(ops, x, w, dy, stride)
    total = (y * dy).sum()
    tolerance = 1e-10 * np.linalg.norm(y) * np.linalg.norm(dy) + 1e-12
    assert (x * dx).sum() == pytest.approx(total, abs=tolerance)
    assert (w * dw).sum() == pytest.approx(total, abs=tolerance)


def test_windows_are_views():
    view = im2col.windows(np.arange(48.0).reshape(1, 4, 4, 3), 3, 3, 1)
    assert view.shape == (1, 4, 4, 3, 3, 3)
    assert view[0, 1, 1, 1, 1].tolist() == view[0, 1, 2, 1, 0].tolist() == view[0, 2, 2, 0, 0].tolist() == [15, 16, 17]
    assert np.shares_memory(view[0, 1, 1], view[0, 2, 2])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("module", [naive, im2col, ops])
def test_float32_stays_float32(module, stride):
    x, w, dy, _ = problem(2, 6, 5, 3, 8, 3, 3, stride)
    for result in three_results(module, x.astype(np.float32), w.astype(np.float32), dy.astype(np.float32), stride):
        assert result.dtype == np.float32


def test_the_bias_is_added_to_every_pixel():
    x, w, _, _ = problem(2, 5, 4, 3, 6, 3, 3, 1)
    bias = np.arange(6.0)
    np.testing.assert_allclose(ops.conv2d(x, w, 1, bias), naive.conv2d(x, w) + bias, atol=1e-12)
