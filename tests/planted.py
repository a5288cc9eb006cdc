"""Faults planted in the text of a kernel or of a module, which the tests must find."""

import inspect
from types import ModuleType

import pytest

from tinysrgan.ops.cuda import compile


def plant(monkeypatch: pytest.MonkeyPatch, file: str, text: str, replacement: str) -> None:
    """Until the test ends, kernels/file has ``replacement`` instead of ``text``, in what it includes as well."""
    source = compile.source
    right = source(file)
    assert text in right, "this fault no longer applies"
    wrong = right.replace(text, replacement)
    monkeypatch.setattr(compile, "source", lambda name: wrong if name == file else source(name))


def plant_in_module(module: ModuleType, text: str, replacement: str) -> ModuleType:
    """A copy of the module with ``replacement`` instead of ``text``."""
    right = inspect.getsource(module)
    assert text in right, "this fault no longer applies"
    wrong = ModuleType(module.__name__)
    exec(right.replace(text, replacement), vars(wrong))
    return wrong
