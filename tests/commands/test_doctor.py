"""The command that says what is here to compute with: true of this machine, and with advice for every other."""

import sys
from importlib.metadata import version

import numpy as np
import pytest

from tinysrgan import doctor
from tinysrgan.core.device import choose_device


def test_it_prints_what_is_here(capsys):
    assert doctor.main([]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert [*lines] == ["tinysrgan", "CPU", "extras", "driver", "CuPy", "computes", "advice"]
    assert f"NumPy {np.__version__}" in lines["CPU"] and "openblas" in lines["CPU"].lower()
    assert lines["computes"].strip() == choose_device("auto")[1]


@pytest.mark.parametrize(
    ("driver", "works", "cupy", "words"),
    [
        (None, False, "not installed", "everything runs on the CPU"),
        (11080, False, "not installed", "too old (CUDA 11)"),
        (12040, False, "not installed", 'pip install "tinysrgan[cuda12]"'),
        (13000, False, "not installed", 'pip install "tinysrgan[cuda13]"'),
        (12090, False, "cupy-cuda12x 14.2.0", 'pip install --force-reinstall "tinysrgan[cuda12]"'),
        (13010, True, "cupy-cuda13x 14.2.0", "nothing to mend"),
    ],
)
def test_advice_is_one_command(monkeypatch, driver, works, cupy, words):
    monkeypatch.setattr(doctor, "installed", lambda *packages: cupy)
    advice = doctor.advice(driver, works)
    assert words in advice and "\n" not in advice
    assert ("pip" in advice) == (advice.startswith(sys.executable))


def test_packages_are_found_by_the_names_that_pip_knows():
    assert doctor.installed("no-such-package", "numpy") == f"numpy {version('numpy')}"
    assert doctor.installed("no-such-package") == "not installed"


def test_what_is_missing_is_named_with_its_use(monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"numpy": "arrays", "no-such-package": "nothing"})
    assert doctor.extras() == "no no-such-package (nothing)"


def test_a_wrong_option_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as stop:
        doctor.main(["--fix"])
    assert stop.value.code == 2 and "Traceback" not in capsys.readouterr().err
