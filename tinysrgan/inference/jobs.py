"""What IN and OUT of a command name: an image and the file for its result, or the images of a folder and theirs."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TextIO, TypeVar

from tinysrgan.core.cli import STREAM, check_target, command_line, identities, progress, say, sentence, taken_by
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.data.images import file_format
from tinysrgan.data.listing import find_images
from tinysrgan.inference.image_files import check_input

Result = TypeVar("Result")
Job = tuple[Path, Path | None]  # an image, and the file for its result; None: no result is written

OVERWRITE_HELP = "replace an existing OUT"


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command that takes IN and OUT, which may stand anywhere between the others."""
    args, rest = parser.parse_known_intermixed_args(command_line(arguments))
    if rest:
        hint = "" if rest[0].startswith("-") else "; for several pictures give a folder"
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return args


class Jobs:
    """The images that a command works on; ``inputs`` are the identities of all files that it reads.

    ``example``: a name for OUT, in messages. ``untold``: whether ``tell`` failed. Raises UserError for what is known to
    be wrong before a file is opened, as for an OUT file that exists, unless ``overwrite``.
    """

    untold = False

    def __init__(self, source: Path, target: Path | None, weights: Path | None, example: str, overwrite: bool):
        self.folder = source != STREAM and source.is_dir()
        self.jobs = _jobs_of(source, target) if self.folder else [(source, target)]
        self.inputs = identities([*(image for image, _ in self.jobs), weights])
        if not self.folder:
            _check(source, target, self.inputs, example)
            if target and target.is_file() and not overwrite:  # after ``*.png``, it may be another picture
                raise UserError(
                    f"{target} exists: name a new file or add --overwrite; for several pictures give a folder."
                )

    def __len__(self) -> int:
        return len(self.jobs)

    def tell(self, line: str, stream: TextIO | None) -> None:
        """Print a line. If that fails, a folder goes on: only one sentence is said. Else raises UserError."""
        try:
            with taken_by(stream):
                print(line, file=stream)
        except UserError as error:
            if not self.folder:
                raise
            say(str(error))
            self.untold = True

    def run(self, work: Callable[[Path, Path | None], Result]) -> list[Result | str]:
        """work(image, file for its result) for each image; the ranks share them.

        In a folder an image may fail: the error's sentence is printed, and returned in place of a result. Raises
        UserError or OSError for an image alone.
        """

        def one(job: Job) -> Result | str:
            source, target = job
            try:
                if self.folder and target:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    check_target(target, self.inputs)
                return work(source, target)
            except (UserError, OSError) as error:
                if not self.folder:
                    raise
                say(sentence(error))
                return sentence(error)
            finally:
                done(ranks().size)

        with progress(len(self), "file", hidden=not self.folder) as done:
            return list(ranks().map(one, self.jobs))


def _check(source: Path, target: Path | None, inputs: Collection[tuple[int, int]], example: str) -> None:
    """Raise UserError if the input or the output can't be used, before either is opened."""
    if source != STREAM:
        check_input(source)
    elif sys.stdin is None:
        raise UserError("IN is -, but standard input is closed.")
    if target == STREAM:
        if sys.stdout is None:
            raise UserError("OUT is -, but standard output is closed.")
        if sys.stdout.isatty():
            raise UserError("OUT is -, but standard output is a terminal: send it to a file or a pipe.")
        output = os.fstat(1)
        if stat.S_ISREG(output.st_mode) and (output.st_dev, output.st_ino) in inputs:
            raise UserError("OUT is -, but standard output goes to an input, and inputs are never overwritten.")
    elif target:
        check_target(target, inputs, example)
        file_format(target)


def _jobs_of(folder: Path, out: Path | None) -> list[Job]:
    """The images of a folder and the files for their results: the same names below ``out``, which is created.

    Raises UserError if there are no images, or if ``out`` can't be used.
    """
    if out is None:
        return [(path, None) for path in find_images(folder, tell=say)]
    if out == STREAM:
        raise UserError("A folder can't go to standard output: give a folder as OUT.")
    if os.path.lexists(out) and not out.is_dir():
        what = "a file" if out.exists() else "a link to nothing"
        raise UserError(f"{out} is {what} and IN a folder: give a folder as OUT.")
    if out.exists() and out.samefile(folder):
        raise UserError(f"{out} is IN itself, and inputs are never overwritten: give another folder as OUT.")
    left_out: list[str] = []
    sources = find_images(folder, tell=left_out.append)
    if (results := out.resolve()).is_relative_to(folder.resolve()):  # earlier results are no inputs
        sources = [path for path in sources if not path.resolve().is_relative_to(results)]
    if not sources:
        raise UserError(f"{folder} holds no images but those in {out}.")
    out.mkdir(parents=True, exist_ok=True)
    for line in left_out:
        say(line)
    return [(path, out / path.relative_to(folder)) for path in sources]
