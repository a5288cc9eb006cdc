"""Which images of a folder a run trains on, and which it holds out for validation: decided once and saved.

Checkpoints and generators store both lists as names relative to the folder, so the folder may move. Its content may
change while a run is stopped; still no image is ever on both sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from tinysrgan.core.cli import printable, say
from tinysrgan.core.errors import UserError
from tinysrgan.data.images import DataError
from tinysrgan.data.listing import find_images
from tinysrgan.data.variants import source_labels
from tinysrgan.formats import checkpoint
from tinysrgan.formats.generator_files import is_ours

NAMED = 10  # names in a notice; there may be thousands

Name = TypeVar("Name", str, Path)


@dataclass(frozen=True)
class Division:
    """The names of a run's images relative to the folder ("sub/a.png"), including files that are gone by now."""

    training: list[str]
    held_out: list[str]

    @classmethod
    def read(cls, path: Path) -> Division | None:
        """The division in a checkpoint or generator file; None if it has none. Raises CheckpointError."""
        lists = checkpoint.read_state(path).get("images")
        if lists is None:
            return None
        sides = [lists.get(side) for side in ("training", "held_out")] if isinstance(lists, dict) else [None]
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in sides):
            raise checkpoint.CheckpointError(f"{path}: what it says of its images are no lists of names.")
        training, held_out = (dict.fromkeys(names or []) for names in sides)
        return cls([name for name in training if name not in held_out], [*held_out])


@dataclass(frozen=True)
class Images:
    """The images of a run: its division, and the files that exist on each side."""

    division: Division
    training: list[Path]
    held_out: list[Path]


def split(
    paths: list[Name], validation: float = 0.33, seed: int = 12, labels: Sequence[Hashable] | None = None
) -> tuple[list[Name], list[Name]]:
    """Divide images at random, always alike, into (training, held out), the latter a share of ``validation``.

    Variants of one image on both sides would make validation worthless. So images with the same label stay on one side,
    unless all have the same; the default labels come from the names (``source_labels``). A group that is larger than
    what is still to be held out goes to training. Raises DataError for fewer than 2 images.
    """
    if len(paths) < 2:
        raise DataError(
            "There must be at least 2 images, one to train on and one to hold out for validation: add some, or raise "
            "--max-images if it is given."
        )
    order = np.random.default_rng(seed).permutation(len(paths))
    room = min(max(1, round(validation * len(paths))), len(paths) - 1)
    labels = source_labels([Path(path).as_posix() for path in paths]) if labels is None else labels
    if len(set(labels)) == 1:
        labels = range(len(paths))
    sizes = Counter(labels)
    room = max(room, min(sizes.values()))
    held_out: dict[Hashable, bool] = {}
    for label in (labels[i] for i in order):
        if label not in held_out:
            held_out[label] = sizes[label] <= room
            room -= sizes[label] * held_out[label]
    return [paths[i] for i in order if not held_out[labels[i]]], [paths[i] for i in order if held_out[labels[i]]]


def begin(folder: Path, limit: int | None, synthetic: bool, generator: Path | None = None) -> Images:
    """Divide the images of a new run; a run on synthetic codes trains on no files and holds out all of them.

    ``generator``, if the run starts from one, has already learnt from images. If some of them are in this folder, its
    division is kept. Raises UserError.
    """
    files = {name_below(folder, path): path for path in find_images(folder, limit, say)}
    known = Division.read(generator) if generator and is_ours(generator) else None
    if known and files.keys() & set(known.training) and (synthetic or files.keys() & set(known.held_out)):
        division = _extended(known, [*files], synthetic)
        say(f"{generator} has learnt from images in {folder}: what it held out stays held out.")
    elif synthetic:
        division = Division([], [*files])
    else:
        labels = source_labels([*files])
        if (count := len(set(labels))) == 1 < len(files):
            say(f"By their names the {len(files)} images are of one source, so those held out are like the others.")
        elif count < len(files):
            say(f"By their names the {len(files)} images are of {count} sources; each source's stay on one side.")
        division = Division(*split([*files], labels=labels))
    return _present(division, files, synthetic, folder, generator)


def resume(folder: Path, limit: int | None, synthetic: bool, run: Path) -> Images:
    """Keep the division of the checkpoint ``run``, add new images to it, and say which are new or missing.

    New images are trained on, except variants of held-out images. A checkpoint without lists, from before they were
    saved, gets the division that its folder would have without changes. Raises UserError.
    """
    known = Division.read(run)
    files = {name_below(folder, path): path for path in find_images(folder, None if known else limit, say)}
    if known:
        division = _extended(known, [*files], synthetic, limit)
        _tell(known, division, files.keys(), folder)
    elif synthetic:
        division = Division([], [*files])
    else:
        division = Division(*split([*files], labels=range(len(files))))
        say(
            f"{run} doesn't list its images, as checkpoints do now: if {folder} has changed since, images that were "
            "held out are trained on."
        )
    return _present(division, files, synthetic, folder, run)


def name_below(folder: Path, path: Path) -> str:
    """The name of an image in a division: relative to the folder, with slashes."""
    return path.relative_to(folder).as_posix()


def _extended(known: Division, names: Sequence[str], synthetic: bool, limit: int | None = None) -> Division:
    """The division with new names added, at most ``limit`` in all.

    A new name is held out if it is a variant of a held-out image, or has the file name of a missing one, which may have
    moved to another folder. With synthetic codes, it is held out unless the generator learnt from a variant of it.
    """
    listed = {*known.training, *known.held_out}
    new = [name for name in names if name not in listed]
    if limit is not None:
        new = new[: max(0, limit - len(listed))]
    every = [*listed, *new]
    source = dict(zip(every, source_labels(every), strict=True))
    learnt = {source[name] for name in known.training}
    judged = {source[name] for name in known.held_out} - learnt
    moved = {_file_name(name) for name in {*known.held_out} - {*names}}
    if synthetic:
        held_out, training = [name for name in new if source[name] not in learnt], []
    else:
        held_out = [name for name in new if source[name] in judged or _file_name(name) in moved]
        training = [name for name in new if name not in set(held_out)]
    return Division([*known.training, *training], [*known.held_out, *held_out])


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


def _tell(known: Division, division: Division, present: Set[str], folder: Path) -> None:
    """Say which images are missing from the folder, and on which side the new ones are."""
    new = division.training[len(known.training) :]
    new_held_out = division.held_out[len(known.held_out) :]
    missing = sorted({*known.training, *known.held_out} - present)
    for names, what in (
        (missing, f"missing from {folder}"),
        (new, f"new in {folder}, to train on"),
        (new_held_out, f"new in {folder}, held out since images like them are"),
    ):
        if names:
            count = f"{len(names)} image{'s are' if len(names) > 1 else ' is'}"
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            say(f"{count} {what}: {', '.join(map(printable, names[:NAMED]))}{more}.")


def _present(
    division: Division, files: Mapping[str, Path], synthetic: bool, folder: Path, source: Path | None
) -> Images:
    """The division with its files. Raises UserError if a side has none; ``source`` is where its lists are from."""
    training = [files[name] for name in division.training if name in files]
    held_out = [files[name] for name in division.held_out if name in files]
    if not held_out or not (training or synthetic):
        side = "trains on" if held_out else "holds out"
        raise UserError(
            f"None of the images in {folder} is one that {source} {side}: give the folder that it was trained on."
        )
    return Images(division, training, held_out)
