"""The first run on a GPU says why it waits; later ones have nothing to say."""

from types import ModuleType, SimpleNamespace

import pytest

from tinysrgan.ops.cuda import compile


@pytest.mark.parametrize(("seconds", "lines"), [(0.4, 1), (30, 1), (0.002, 0)])
def test_compiling_that_takes_long_is_explained_once(monkeypatch, capsys, seconds, lines):
    clock = iter(range(1000))
    monkeypatch.setattr(compile.time, "perf_counter", lambda: seconds * next(clock))
    monkeypatch.setattr(compile, "_waited", 0.0)
    cupy = ModuleType("cupy")
    cupy.RawModule = lambda **_: SimpleNamespace(get_function=lambda name: None)
    for number in range(45):
        compile.kernel(cupy, "sums.cu", "sum_rows", NUMBER=number)
        compile.kernel(cupy, "sums.cu", "sum_rows", NUMBER=number)  # compiled already
    assert capsys.readouterr().err.count("compiling the CUDA kernels") == lines
