"""What the tests of the commands' errors share: a mistake is answered by one sentence, and no file changes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def contents(folder: Path = Path()) -> dict[str, bytes | str]:
    """Map every path below a folder to a file's bytes, or to its kind."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = "link to " + os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder" if path.is_dir() else "other"
    return found


def run(main: Callable, arguments: Sequence) -> int:
    """Run a command; its exit code."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse prints the usage first
        return stop.code


def python(*arguments, **options) -> subprocess.CompletedProcess:
    """Run Python with this package in another process, its standard streams buffered as they normally are."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, text=True, **streams | options)


def check_sentence(err: str, words: str) -> None:
    """Assert that stderr is one sentence with these words, after argparse's usage or the progress bar."""
    *usage, error = (line for line in err.splitlines() if line.strip() and "%|" not in line)
    assert words in error, error
    assert error.startswith("tinysrgan: ") or ": error: " in error, error
    assert all(line.startswith(("usage: ", "    ", "Downloading ")) for line in usage), err
    assert "Traceback" not in err and "Errno" not in err and error.isprintable() and len(error) < 6000, err
    assert error.endswith((".", "`")) or usage, error


def refuse(main: Callable, arguments: Sequence, words: str, capsys) -> tuple[str, str]:
    """Assert that a command says one sentence with these words, exits with 2 and changes no file; all that it says."""
    before = contents()
    code = run(main, arguments)
    out, err = capsys.readouterr()
    assert code == 2, (out, err)
    check_sentence(err, words)
    after = contents()
    assert after.keys() == before.keys() and after == before
    return out, err


@contextmanager
def without_privileges(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Act as a user whom permissions concern: root ignores them, and os.access checks those of the real user."""
    user = os.geteuid()
    with monkeypatch.context() as patch:
        if user == 0:
            patch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o2))
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)


def bad_outputs(source: str) -> dict[str, tuple[str, str]]:
    """Where no result can go beside a command's input ``source``: the path, and words that a message has."""
    ending = Path(source).suffix
    return {
        "the input": (source, "is an input too, and inputs are never overwritten"),
        "the input, another way": (f"folder/../{source}", "is an input too"),
        "a link to the input": (f"link{ending}", "is an input too"),
        "a second name of the input": (f"second{ending}", "is an input too"),
        "a folder": (f"folder{ending}", "is a folder: give a file name"),
        "a pipe": (f"pipe{ending}", f"pipe{ending} is not a file."),
        "in no folder": (f"nowhere/out{ending}", "There is no folder nowhere"),
        "below a file": (f"{source}/out{ending}", f"There is no folder {source}"),
        "endless name": ("x" * 300 + ending, "ame too long"),
    }


def make_bad_outputs(source: str) -> None:
    """Make what ``bad_outputs`` names."""
    ending = Path(source).suffix
    os.mkdir("folder")
    os.mkdir(f"folder{ending}")
    os.mkfifo(f"pipe{ending}")
    os.symlink(source, f"link{ending}")
    os.link(source, f"second{ending}")
