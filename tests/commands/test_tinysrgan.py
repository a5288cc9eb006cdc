"""``tinysrgan COMMAND`` equals ``python -m tinysrgan.COMMAND``. Without a command it lists the commands."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinysrgan
from tinysrgan.__main__ import COMMANDS, main

ROOT = Path(tinysrgan.__file__).parent


def run(*args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
    return subprocess.run([sys.executable, "-m", *args], capture_output=True, text=True, env=environment, timeout=120)


def test_every_command_is_listed():
    with_main = {path.stem for path in ROOT.glob("*.py") if re.search(r"^if __name__ ==", path.read_text(), re.M)}
    assert with_main - {"__main__"} | {"gradcheck"} == set(COMMANDS)
    assert all(callable(importlib.import_module(f"tinysrgan.{name}").main) for name in COMMANDS)


@pytest.mark.parametrize("name", ["export", "gradcheck"])
def test_a_command_gets_its_arguments(name):
    direct, through = run(f"tinysrgan.{name}", "--help"), run("tinysrgan", name, "--help")
    assert direct.stdout == through.stdout and direct.returncode == through.returncode == 0
    assert run("tinysrgan", name, "--nonsense").returncode == 2
    assert run(f"tinysrgan.{name}", "--nonsense").returncode == 2


def test_without_a_command_all_are_listed(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)


def test_an_unknown_command_is_a_users_mistake(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["trian", "data/qr"])
    assert ended.value.code == 2 and "'trian'" in capsys.readouterr().err


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"tinysrgan {tinysrgan.__version__}\n"
