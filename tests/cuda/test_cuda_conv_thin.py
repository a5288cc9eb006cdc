"""conv_thin.cu: convolutions with few outputs on the tensor cores, run on the CPU, against ``naive`` in float64."""

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import no_reading
from planted import plant
from test_cuda_conv_tf32 import arrays, assert_close, epilogue, truths

from tinysrgan.ops.cuda import conv_thin, convolution
from tinysrgan.ops.cuda.geometry import geometry

pytestmark = [pytest.mark.kernels, pytest.mark.tensor_cores]

# N H W C K R S stride
CASES = {
    "9x9 to three": (2, 5, 12, 32, 3, 9, 9, 1),
    "to one, wider than the image": (1, 6, 7, 64, 1, 3, 17, 1),
    "even columns": (1, 9, 16, 32, 2, 5, 8, 1),
}
FIRST = CASES["9x9 to three"]


def check_y(cupy, case, present=(True, True, True)):
    x, w, _, extras = arrays(case)
    extras = [extra if here else None for extra, here in zip(extras, present, strict=True)]
    with no_reading():
        y = conv_thin.conv2d(
            *map(cupy.asarray, (x, w)), *(None if extra is None else cupy.asarray(extra) for extra in extras)
        )
    assert_close(y.get(), epilogue(truths(case)[0], *extras), w[..., 0].size)


def check_dx(cupy, case):
    x, w, dy, _ = arrays(case)
    x, w, dy = map(cupy.asarray, (x, w, dy))
    for shortcut, added in ((None, 0), (x, x.get())):
        with no_reading():
            dx = conv_thin.conv2d_grad_input(dy, w, x.shape, shortcut)
        assert_close(dx.get(), truths(case)[1] + added, w[:, :, 0].size)
    columns = w.shape[1] * w.shape[3]
    assert not conv_thin._spread(geometry(x.shape, w.shape, 1), dy).get()[..., columns:].any(), "the padding"


def check_dw(cupy, case):
    """dw is added to w and the bias's gradient to ones."""
    x, w, dy, _ = arrays(case)
    w_grad, b_grad = cupy.asarray(w), cupy.ones(w.shape[-1], np.float32)
    with no_reading():
        conv_thin.add_gradients(cupy.asarray(x), cupy.asarray(dy), w_grad, b_grad)
    assert_close(w_grad.get(), w + truths(case)[2], dy[..., 0].size)
    assert_close(b_grad.get(), 1 + dy.astype(np.float64).sum(axis=(0, 1, 2)), dy[..., 0].size)


CHECKS = {"y": check_y, "dx": check_dx, "dw": check_dw}


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize("case", CASES)
def test_y_dx_and_dw_equal_those_of_the_six_loops(cupy, case, what, turns):
    with runner.order(turns):
        CHECKS[what](cupy, CASES[case])


@pytest.mark.parametrize("only", range(3))
def test_bias_slope_and_shortcut_are_optional(cupy, only):
    check_y(cupy, FIRST, [i == only for i in range(3)])


def test_the_last_layer_of_a_generator_comes_here_unless_exact(cupy):
    def rung(w_shape, stride=1, exact=False):
        return convolution.rung((1, 24, 24, w_shape[2]), w_shape, stride, np.dtype(np.float32), exact)

    assert rung((9, 9, 64, 3)) == rung((9, 9, 256, 3)) == "conv_thin"
    others = rung((9, 9, 64, 3), stride=2), rung((9, 9, 64, 3), exact=True)
    assert {*others, rung((9, 9, 3, 64)), rung((11, 11, 64, 3)), rung((3, 3, 64, 3))} == {"conv_tiled"}
    x, w, dy, (bias, *_) = arrays(FIRST)
    x, w, dy, bias = map(cupy.asarray, (x, w, dy, bias))
    for found, same in (
        (convolution.conv2d(x, w, 1, bias), conv_thin.conv2d(x, w, bias)),
        (convolution.conv2d_grad_input(dy, w, x.shape), conv_thin.conv2d_grad_input(dy, w, x.shape)),
    ):
        np.testing.assert_array_equal(found.get(), same.get())
    grads = [(cupy.zeros(w.shape, np.float32), cupy.zeros(w.shape[-1], np.float32)) for _ in range(2)]
    convolution.add_conv2d_grads(x, dy, *grads[0], 1, False)
    conv_thin.add_gradients(x, dy, *grads[1])
    for found, same in zip(*grads, strict=True):
        np.testing.assert_array_equal(found.get(), same.get())


FAULTS = [
    ("s = i % L / g.K", "s = i % L % g.S"),
    ("k = i % L % g.K", "k = i % g.K"),
    ("s < g.S ? w", "true ? w"),
    ("c = i / L % g.C", "c = i / L / g.R"),
    ("i >= (long long)g.N * g.P * g.Q * g.K", "i > (long long)g.N * g.P * g.Q * g.K"),
    ("i / g.K / g.Q * g.W", "i / g.K / g.Q % g.P * g.W"),
    ("q - g.left + s", "q + s"),
    ("column >= 0 && ", ""),
    ("column < g.W)", "column <= g.W)"),
    ("s * g.K + k]", "k]"),
    ("(sum, i, k)", "(sum, i, 0)"),
    ("pixel >= g.N * g.P * g.W", "pixel > g.N * g.P * g.W"),
    ("int s = threadIdx.x / g.K", "int s = threadIdx.x % g.S"),
    ("k = threadIdx.x % g.K", "k = threadIdx.x / g.S"),
    ("shift = g.left - s", "shift = g.left + s"),
    ("q = pixel % g.W + shift", "q = pixel % g.P + shift"),
    ("(pixel + shift) * g.K", "pixel * g.K"),
    ("s < g.S && q >= 0", "q >= 0"),
    ("q >= 0 && q", "q"),
    ("&& q < g.Q;", "&& q <= g.Q;"),
    ("i >= weights + g.K", "i > weights + g.K"),
    ("if (i >= weights) {", "if (i > weights) {"),
    ("b_grad[k] +=", "b_grad[k] ="),
    ("column_sums[g.left * g.K + k]", "column_sums[k]"),
    ("w_grad[i] +=", "w_grad[i] ="),
    ("(r * g.C + c) * L + s", "(r + g.R * c) * L + s"),
]  # fmt: skip


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS, ids=" -> ".join)
def test_planted_faults_are_found(cupy, monkeypatch, fault):
    plant(monkeypatch, "conv_thin.cu", *fault)
    with pytest.raises((AssertionError, runner.CudaError)) as found:
        for case in CASES.values():
            for check in CHECKS.values():
                check(cupy, case)
    assert "g++" not in str(found.value), "this fault does not compile"
