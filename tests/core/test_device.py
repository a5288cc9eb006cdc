"""The choice of a device: a GPU is used only if it works; otherwise one sentence gives the reason."""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu

from tinysrgan.core.device import array_module, constant, to_device
from tinysrgan.core.errors import UserError
from tinysrgan.layers import BatchNorm, Dense, Sequential
from tinysrgan.losses import mean_squared_error
from tinysrgan.models import Generator
from tinysrgan.ops.cuda import compile as kernels
from tinysrgan.ops.device import choose_device


class Broken:
    """An array whose first use fails, like CuPy's arrays without a driver."""

    def __init__(self, error):
        self.error = error

    def __add__(self, other):
        raise self.error


def broken_cupy(error):
    return SimpleNamespace(__version__="14.0", ndarray=Broken, asarray=lambda x: Broken(error))


# CuPy's messages if a library is missing, and if a kernel does not compile.
IMPORT = ImportError(
    """
================================================================
Failed to import CuPy.

If you installed CuPy via wheels (cupy-cudaXXX or cupy-rocm-X-X), make sure that the package matches.

Original error:
  ImportError: libnvrtc.so.12: cannot open shared object file
================================================================
"""
)
LOG = RuntimeError("k.cu(3): warning: unused\n\nk.cu(4): error: identifier is undefined\n\n1 error detected.\n")
NO_DRIVER = RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient\nsecond line")


@pytest.fixture(params=["not installed", "no driver", "no message", "a notice", "a log"])
def unusable(request, monkeypatch):
    """Make the GPU unusable in one of five ways; the value is the expected reason."""
    module, reason = {
        "not installed": (None, "CuPy is not installed"),
        "no driver": (broken_cupy(NO_DRIVER), "cudaErrorInsufficientDriver: CUDA driver version is insufficient"),
        "no message": (broken_cupy(OSError()), "OSError"),
        "a notice": (broken_cupy(IMPORT), "ImportError: libnvrtc.so.12: cannot open shared object file"),
        "a log": (broken_cupy(LOG), "k.cu(4): error: identifier is undefined"),
    }[request.param]
    monkeypatch.setitem(sys.modules, "cupy", module)  # None: ``import cupy`` raises ImportError
    return reason


def test_the_cpu_by_name_asks_for_no_gpu(unusable):
    assert choose_device("cpu") == (np, "on the CPU with NumPy")


def test_auto_falls_back_to_the_cpu_and_says_why(unusable):
    assert choose_device("auto") == choose_device() == (np, f"on the CPU with NumPy ({unusable})")


def test_a_gpu_that_was_asked_for_by_name_is_one_sentence_where_it_is_missing(unusable):
    with pytest.raises(UserError) as caught:
        choose_device("cuda")
    message = str(caught.value)
    assert message == f"--device cuda doesn't work here: {unusable}. Mend that, or use --device cpu."
    assert "\n" not in message


def test_a_cupy_that_is_installed_but_cannot_be_loaded_is_not_called_missing(tmp_path, monkeypatch):
    """Installing CuPy again would not help, so the message names the missing library."""
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert choose_device("auto")[1] == "on the CPU with NumPy (libcuda.so.1: cannot open shared object file)"


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_that_works_is_named(name):
    with cupy_on_cpu() as cupy:
        where = choose_device(name)
        assert where[0] is cupy and re.fullmatch(r"on the GPU .+ with CuPy .+", where[1])


@pytest.mark.cpu_only
@pytest.mark.kernels
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (("sum += x[", "sum += 2 * x["), "their results are wrong"),
        (("REAL sum = 0;", "REAL sum = nothing;"), "error: .*nothing"),
    ],
)
def test_a_gpu_on_which_our_own_kernel_fails_is_not_taken(monkeypatch, fault, words):
    """CuPy's own kernels work, but ours does not compile or its result differs from NumPy's."""
    text = kernels.source("sums.cu")
    assert fault[0] in text
    monkeypatch.setattr(kernels, "source", lambda file: text.replace(*fault))
    with cupy_on_cpu():
        assert choose_device("auto")[0] is np
        assert re.search(words, choose_device("auto")[1])
        with pytest.raises(UserError, match=f"^--device cuda doesn't work here: .*{words}.*"):
            choose_device("cuda")


def test_arrays_of_numpy_are_numpys(unusable):
    for x in (np.ones(3), np.float32(1), np.ones((2, 0))):
        assert array_module(x) is np


def test_an_array_of_cupy_is_cupys(monkeypatch):
    cupy = broken_cupy(NO_DRIVER)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert array_module(Broken(NO_DRIVER)) is cupy
    assert array_module(np.ones(1)) is np


def test_cupy_is_imported_only_for_those_who_ask():
    code = "import sys, tinysrgan.train; from tinysrgan.ops.device import choose_device; choose_device('cpu');"
    code += "print('cupy' in sys.modules, 'torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "False False\n"


def test_an_array_that_is_there_already_stays_as_it_is():
    x = np.ones(3)
    assert to_device(x, np) is x


def test_an_array_of_a_gpu_is_copied_back():
    class OnGPU:
        def get(self):
            return np.array([1, 2])

    assert to_device(OnGPU(), np).tolist() == [1, 2]


def test_a_net_moves_as_a_whole():
    """``to`` converts values, gradients and running statistics. A subclass of ndarray stands for the other device."""

    class Elsewhere(np.ndarray):
        pass

    module = SimpleNamespace(asarray=lambda x: x.view(Elsewhere))
    net = Sequential(Dense(2, 3), BatchNorm(3))
    net.to(module)
    tensors = net.tensors()
    assert tensors.keys() == {"0.w", "0.b", "1.gamma", "1.beta", "1.running_mean", "1.running_variance"}
    for name, tensor in tensors.items():
        assert isinstance(tensor.value, Elsewhere), name
    for name, parameter in net.parameters().items():
        assert isinstance(parameter.grad, Elsewhere), name


@pytest.mark.kernels
@pytest.mark.parametrize("upscale", ["shuffle", "nearest"])
def test_a_generator_gives_the_same_on_the_gpu(upscale):
    rng = np.random.default_rng(0)
    x, target = rng.uniform(-1, 1, (2, 8, 7, 3)), rng.uniform(-1, 1, (2, 32, 28, 3))
    results = []
    with cupy_on_cpu() as cupy:
        for module in (np, cupy):
            net = Generator(2, 8, 4, upscale, "tanh", seed=1).astype(np.float64)
            net.to(module)
            y = net.forward(to_device(x, module))
            assert array_module(y) is module
            _, dy = mean_squared_error(y, to_device(target, module))
            arrays = {"y": y, "dx": net.backward(dy)} | {name: p.grad for name, p in net.parameters().items()}
            results.append({name: to_device(array, np) for name, array in arrays.items()})
    for name, truth in results[0].items():
        result = results[1][name]
        np.testing.assert_allclose(result, truth, rtol=0, atol=1e-9 * max(1, abs(truth).max()), err_msg=name)


def test_a_constant_is_copied_to_the_gpu_once():
    """A CUDA graph could not send it again."""
    with cupy_on_cpu() as cupy:
        found = [constant((1.0, 2.5), cupy.ones(3, dtype)) for dtype in (np.float32, np.float32, np.float64)]
        assert found[0] is found[1]
        assert all(isinstance(x, cupy.ndarray) and x.tolist() == [1, 2.5] for x in found)
        assert [x.dtype for x in found] == [np.float32, np.float32, np.float64]
    assert type(constant((1.0, 2.5), np.ones(3))) is np.ndarray
