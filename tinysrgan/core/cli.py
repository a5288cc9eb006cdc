"""What the commands share: exit codes, messages, checks before they write, parsers of options."""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from tinysrgan.core.atomic_write import write_whole
from tinysrgan.core.device import GPU_ERRORS, reason
from tinysrgan.core.errors import UnlikeWarning, UserError
from tinysrgan.core.quiet import own_standard_error
from tinysrgan.core.ranks import patience, ranks, started

Number = TypeVar("Number", int, float)

STREAM = Path("-")  # standard input or output
BAR_DELAY = 0.5  # seconds; what is done by then needs no progress bar

ORIENTATIONS_HELP = "8 averages all turns (default: for small pictures of codes)"
VALUE_RANGE_HELP = (
    "value range, if the weights don't state it: signed (-1 to 1), unit (0 to 1) or bytes (0 to 255), "
    "OUT also tanh or sigmoid. The article's is bytes, the best-known Keras port's unit:tanh"
)
KERAS_HELP = "Keras' .keras or .h5: a whole model's wiring is checked, weights alone don't tell it; or .safetensors"
DEVICE: dict[str, Any] = {  # the option --device
    "choices": ("auto", "cpu", "cuda"),
    "default": "auto",
    "help": "where to compute (default: a GPU if one works)",
}
EXACT_HELP = "six digits of float32, slower: no Winograd convolutions, no TF32 on a GPU"


def command(
    run: Callable[[], int],
    stopped: str = "stopped; nothing was written.",
    no_memory: str = "There is too little memory for this.",
) -> int:
    """Run a command; return its exit code, or 2 after an error and 130 after Ctrl-C, each with one sentence."""
    with own_standard_error():
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names and codes may hold what the terminal can't show
                stream.reconfigure(errors="backslashreplace")
        try:
            with started(), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # overflowing values raise an error too
                warnings.simplefilter("ignore", UnlikeWarning)  # upscale says it itself, with the file's name
                warnings.showwarning = lambda message, *_, **__: say(str(message))
                return run()
        except KeyboardInterrupt:
            return _end(stopped, 130)
        except MemoryError:
            return _end(no_memory)
        except (UserError, OSError) as error:
            return _end(sentence(error))
        except Exception as error:
            if type(error).__name__ not in GPU_ERRORS:
                if ranks().size > 1:
                    _end(traceback.format_exc())
                raise
            return _end(
                f"The GPU failed: {reason(error)}. Ask `python -m tinysrgan.doctor`, or compute with --device cpu."
            )


def _end(why: str, code: int = 2) -> int:
    """Say why the command ends, and end it on all ranks: those that wait for this one would wait for ever."""
    time.sleep(patience())
    say(f"rank {ranks().rank}: {why}" if ranks().rank else why)
    if ranks().size > 1:
        time.sleep(1)  # mpiexec passes the sentence on; an abort drops what it has not read yet
    ranks().abort(code)
    return code


def command_line(arguments: list[str] | None) -> list[str]:
    """The arguments (default: the process's) for argparse, with ``~`` as the home folder, and ``-name`` as ``./-name``.

    No option is one dash and a name: where there is such a file, the file is meant. After the first ``--``, which ends
    the options, every argument is a file, also a second ``--``, which argparse would drop.
    """
    args = sys.argv[1:] if arguments is None else list(arguments)
    for before, arg in zip(["", *args], args, strict=False):
        if not arg or (arg.startswith("--") and arg.endswith("=")):  # as a path, it would be the current folder
            which = arg or (f"after {before}" if before else "at the start")
            raise UserError(f"The argument {which} is empty: give it a value, or leave it out.")
    end = args.index("--") if "--" in args else len(args)

    def plain(i: int, arg: str) -> str:
        if arg.startswith("-") and arg != "-" and (i > end or (arg[1] != "-" and os.path.exists(arg))):
            return os.path.join(".", arg)
        # the shell leaves the ~ of --out=~/x
        return re.sub("^(--[a-z-]+=)?(~.*)", lambda found: (found[1] or "") + os.path.expanduser(found[2]), arg)

    return [plain(i, arg) for i, arg in enumerate(args)]


# ---------------------------------------------------------------- what is said and shown


def say(text: str) -> None:
    """Print a line on standard error, above the progress bar if there is one."""
    tqdm.write(f"tinysrgan: {text}", file=sys.stderr)


def sentence(error: Exception) -> str:
    """An error as one sentence that names the file."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}." if error.filename else f"{error.strerror}."


def printable(text: str) -> str:
    """Escape line breaks and all else that a terminal would obey."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


@contextmanager
def progress(total: int, unit: str, scaled: bool = False, hidden: bool = False) -> Iterator[Callable[[int], object]]:
    """A progress bar on standard error, if that is a terminal; yields the function that advances it."""
    disable = True if hidden else None  # None: unless it's a terminal
    with tqdm(total=total, unit=unit, unit_scale=scaled, delay=BAR_DELAY, leave=False, disable=disable) as bar:
        yield bar.update


# ---------------------------------------------------------------- what is written


def identity(path: Path) -> tuple[int, int]:
    """(device, inode) of a file or of standard input: the same under every name, links included."""
    status = os.fstat(0) if path == STREAM else path.stat()
    return status.st_dev, status.st_ino


def identities(paths: Iterable[Path | None]) -> set[tuple[int, int]]:
    """The identities of those files that exist."""
    found = set()
    for path in paths:
        with suppress(OSError):
            found |= {identity(path)} if path else set()
    return found


def spare_inputs(path: Path, inputs: Collection[tuple[int, int]]) -> None:
    """Raise UserError if an output file is, under any name, one of the inputs with these identities."""
    if path.exists() and identity(path) in inputs:
        raise UserError(f"{path} is an input too, and inputs are never overwritten: let the output go elsewhere.")


def check_target(path: Path, inputs: Collection[tuple[int, int]], example: str = "") -> None:
    """Raise UserError before the work is done if an output file can't be written.

    inputs: the identities of the files that the command reads.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a file name{f', for example {path / example}' if example else ''}.")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file.")
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} to write {path.name} to.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent} doesn't allow to write {path.name} there: Permission denied.")
    spare_inputs(path, inputs)
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{path} is write-protected: name another file.")


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all. Raises UserError if that fails."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}. What was there before is intact.") from error


@contextmanager
def taken_by(stream: TextIO | None, name: str = "standard output") -> Iterator[None]:
    """Raise UserError if what the ``with`` block prints to a standard stream can't be written."""
    try:
        yield
        if stream is not None:
            stream.flush()
    except OSError as error:
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python would try again on its way out
        raise UserError(f"{name} can't be written: {error.strerror}.") from error


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of integers from ``low`` to ``high`` for argparse."""
    limits = f"{low} or more" if high is None else f"from {low} to {high}"
    return _parser(int, lambda number: low <= number and (high is None or number <= high), f"a whole number, {limits}")


def real(low: float, below: float = math.inf) -> Callable[[str], float]:
    """A parser of numbers from ``low`` to less than ``below`` for argparse."""
    limits = f"{low:g} or more" + ("" if below == math.inf else f" and less than {below:g}")
    return _parser(float, lambda number: low <= number < below, f"a number, {limits}")


def _parser(read: Callable[[str], Number], fits: Callable[[Number], bool], what: str) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        with suppress(ValueError):
            if fits(number := read(text)):
                return number
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}")

    return parse
