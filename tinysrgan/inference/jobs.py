"""What IN and OUT of a command name: an image and the file for its result, or the images of a folder and theirs."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from tinysrgan.core.cli import STREAM, check_target, identities, progress, say, sentence
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.data.images import file_format
from tinysrgan.data.listing import find_images
from tinysrgan.inference.image_files import check_input

Result = TypeVar("Result")
Job = tuple[Path, Path | None]  # an image, and the file for its result; None: no result is written


class Jobs:
    """The images that a command works on; ``inputs`` are the identities of all files that it reads.

    ``example``: a name for OUT, in messages. Raises UserError for what is known to be wrong before a file is opened.
    """

    def __init__(self, source: Path, target: Path | None, weights: Path | None, example: str):
        self.folder = source != STREAM and source.is_dir()
        self.jobs = _jobs_of(source, target) if self.folder else [(source, target)]
        self.inputs = identities([*(image for image, _ in self.jobs), weights])
        if not self.folder:
            _check(source, target, self.inputs, example)

    def __len__(self) -> int:
        return len(self.jobs)

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
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file and IN a folder: give a folder as OUT.")
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
