"""``doctor``: its report is true of this machine, and its advice fits other machines."""

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinysrgan import doctor
from tinysrgan.ops.device import choose_device


def test_it_prints_what_is_here(capsys):
    assert doctor.main([]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert [*lines] == ["tinysrgan", "CPU", "extras", "driver", "CuPy", "computes", "advice"]
    assert f"NumPy {np.__version__}" in lines["CPU"] and "openblas" in lines["CPU"].lower()
    assert lines["computes"].strip() == choose_device("auto")[1]


NO_NVRTC = "on the CPU with NumPy (CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot open)"
FULL = "on the CPU with NumPy (Out of memory allocating 512 bytes (allocated so far: 0 bytes))"
TOOLKIT12 = ["nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12"]
INSTALL12 = 'install "cupy-cuda12x>=14" "nvidia-cuda-nvrtc-cu12" "nvidia-cuda-runtime-cu12"'
INSTALL13 = 'install "cupy-cuda13x>=14" "nvidia-cuda-nvrtc>=13,<14" "nvidia-cuda-runtime>=13,<14"'


@pytest.mark.parametrize(
    ("driver", "here", "where", "words"),
    [
        (None, [], "", "everything runs on the CPU"),
        (11080, [], "", "too old (CUDA 11)"),
        (12040, [], "", f"PIP {INSTALL12}"),
        (13000, [], "", f"PIP {INSTALL13}"),
        (12090, ["cupy-cuda12x"], NO_NVRTC, f"PIP {INSTALL12}"),
        (12090, ["cupy-cuda12x", *TOOLKIT12], NO_NVRTC, "PIP install --force-reinstall --no-deps --upgrade "),
        (13000, ["cupy-cuda12x", *TOOLKIT12], "", f"PIP uninstall --yes cupy-cuda12x && PIP {INSTALL13}"),
        (12080, ["cupy-cuda13x"], "", f"PIP uninstall --yes cupy-cuda13x && PIP {INSTALL12}"),
        (12080, ["cupy", "numpy"], "", f"PIP uninstall --yes cupy && PIP {INSTALL12}"),
        (12080, ["cupy-cuda12x", "cupy-cuda13x"], "", "PIP uninstall --yes cupy-cuda12x cupy-cuda13x && "),
        (12090, ["cupy-cuda12x", *TOOLKIT12], FULL, "the GPU's memory is full"),
        (13000, ["cupy-cuda12x"], "(cudaErrorMemoryAllocation: out of memory)", "the GPU's memory is full"),
        (12090, ["cupy-cuda12x"], "(OutOfMemoryError)", "the GPU's memory is full"),
        (12090, ["cupy-cuda12x"], "(cudaErrorNoDevice: no CUDA-capable device is detected)", "the driver sees no GPU"),
        (12090, ["cupy-cuda12x", *TOOLKIT12], "(cudaErrorECCUncorrectable: uncorrectable ECC error)", "nvidia-smi"),
    ],
)
def test_advice_is_one_line_that_works(monkeypatch, driver, here, where, words):
    """Test on a made-up list of installed packages. Every command in the advice uses the running interpreter."""
    monkeypatch.setattr(doctor, "distributions", lambda: [SimpleNamespace(metadata={"Name": name}) for name in here])
    monkeypatch.setattr(doctor, "installed", lambda name: f"{name} 14" if name in here else "not installed")
    advice = doctor.advice(driver, False, where)
    assert words.replace("PIP", f"{sys.executable} -m pip") in advice and "\n" not in advice
    assert advice.startswith(sys.executable) == ("-m pip" in advice) == ("PIP" in words)
    assert "tinysrgan" not in advice.replace(sys.executable, "")


def test_there_is_nothing_to_mend_where_the_gpu_works():
    assert "nothing to mend" in doctor.advice(13010, True)


def test_advice_names_the_packages_of_the_extras():
    """tinysrgan is not on PyPI, so the advice names the packages that its extras install."""
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [*doctor.CUDA12] == extras["cuda12"] and [*doctor.CUDA13] == extras["cuda13"]


def test_every_kind_of_cupy_is_seen_and_nothing_else(monkeypatch):
    names = ["numpy", "CuPy-cuda12x", "cupy-rocm-5-0", "cupy", "cupy-xarray", "tocupy", None]
    monkeypatch.setattr(doctor, "distributions", lambda: [SimpleNamespace(metadata={"Name": name}) for name in names])
    assert doctor.cupys() == ["cupy", "cupy-cuda12x", "cupy-rocm-5-0"]


def test_packages_are_found_by_the_names_that_pip_knows():
    assert doctor.installed("numpy") == f"numpy {version('numpy')}"
    assert doctor.installed("no-such-package") == "not installed"


def test_a_blas_that_threadpoolctl_does_not_know_is_said(monkeypatch):
    monkeypatch.setattr(doctor, "threadpool_info", list)
    assert "one worker" in doctor.blas()


def test_what_is_missing_is_named_with_its_use(monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"numpy": "arrays", "no-such-package": "nothing"})
    assert doctor.extras() == "no no-such-package (nothing)"


def test_a_wrong_option_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as stop:
        doctor.main(["--fix"])
    assert stop.value.code == 2 and "Traceback" not in capsys.readouterr().err
