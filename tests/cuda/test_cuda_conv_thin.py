"""conv_thin.cu: convolutions with few outputs on the tensor cores, run on the CPU, against ``naive`` in float64."""

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import no_reading
from planted import plant
from test_cuda_conv_tf32 import arrays, assert_close, epilogue, truths

from tinysrgan.ops.cuda import conv_thin, convolution

pytestmark = [pytest.mark.kernels, pytest.mark.tensor_cores]

# N H W C K R S stride
CASES = {
    "9x9 to three": (2, 5, 12, 32, 3, 9, 9, 1),
    "to one, wider than the image": (1, 6, 7, 64, 1, 3, 17, 1),
    "even columns": (1, 9, 16, 32, 2, 5, 8, 1),
}
FIRST = CASES["9x9 to three"]


def check(cupy, case, present=(True, True, True)):
    x, w, _, extras = arrays(case)
    extras = [extra if here else None for extra, here in zip(extras, present, strict=True)]
    with no_reading():
        y = conv_thin.conv2d(
            *map(cupy.asarray, (x, w)), *(None if extra is None else cupy.asarray(extra) for extra in extras)
        )
    assert_close(y.get(), epilogue(truths(case)[0], *extras), w[..., 0].size)


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_y_equals_that_of_the_six_loops(cupy, case, turns):
    with runner.order(turns):
        check(cupy, case)


@pytest.mark.parametrize("only", range(3))
def test_bias_slope_and_shortcut_are_optional(cupy, only):
    check(cupy, FIRST, [i == only for i in range(3)])


def test_the_last_layer_of_a_generator_comes_here_unless_exact(cupy):
    def rung(w_shape, stride=1, exact=False, forward=True):
        return convolution.rung((1, 24, 24, w_shape[2]), w_shape, stride, np.dtype(np.float32), exact, forward)

    assert rung((9, 9, 64, 3)) == rung((9, 9, 256, 3)) == "conv_thin"
    others = rung((9, 9, 64, 3), stride=2), rung((9, 9, 64, 3), exact=True), rung((9, 9, 64, 3), forward=False)
    assert {*others, rung((9, 9, 3, 64)), rung((11, 11, 64, 3)), rung((3, 3, 64, 3))} == {"conv_tiled"}
    assert rung((9, 9, 64, 4)) == "conv_tf32"
    x, w, _, (bias, *_) = arrays(FIRST)
    x, w, bias = map(cupy.asarray, (x, w, bias))
    same = conv_thin.conv2d(x, w, bias).get()
    np.testing.assert_array_equal(convolution.conv2d(x, w, 1, bias).get(), same)


FAULTS = [
    ("i >= g.R * g.C * L", "i > g.R * g.C * L"),
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
]  # fmt: skip


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS, ids=" -> ".join)
def test_planted_faults_are_found(cupy, monkeypatch, fault):
    plant(monkeypatch, "conv_thin.cu", *fault)
    with pytest.raises((AssertionError, runner.CudaError)) as found:
        for case in CASES.values():
            check(cupy, case)
    assert "g++" not in str(found.value), "this fault does not compile"
