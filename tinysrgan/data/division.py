"""Which images of a folder a run trains on and which it holds out: decided once and kept.

Checkpoints and generators hold both lists, as names below the folder, so the folder itself may move. Whatever changes
in it between two parts of a run, no image is ever on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from tinysrgan.core.cli import printable, say
from tinysrgan.core.errors import UserError
from tinysrgan.data.dataset import find_images, split
from tinysrgan.data.sources import sources
from tinysrgan.formats import checkpoint

NAMED = 10  # names in a notice; there may be thousands


@dataclass(frozen=True)
class Division:
    """Images by their names below the folder ("sub/a.png"), also those that are no longer there."""

    training: list[str]
    held_out: list[str]

    @classmethod
    def read(cls, path: Path) -> Division | None:
        """The division that a checkpoint or a generator's file holds; None if it holds none. Raises CheckpointError."""
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
    """The images of a run: its division, and those files of it that are there."""

    division: Division
    training: list[Path]
    held_out: list[Path]


def begin(folder: Path, limit: int | None, fresh: bool, generator: Path | None = None) -> Images:
    """Divide the images of a new run; with ``fresh`` all are held out, since it trains on no files.

    ``generator``, which the run may begin with, has learnt from images too: where they are in this folder, its division
    is kept. Raises UserError.
    """
    files = {name_below(folder, path): path for path in find_images(folder, limit, say)}
    known = Division.read(generator) if generator else None
    if known and files.keys() & set(known.training) and (fresh or files.keys() & set(known.held_out)):
        division = _extended(known, [*files], fresh)
        say(f"{generator} has learnt from images in {folder}: what it held out stays held out.")
    elif fresh:
        division = Division([], [*files])
    else:
        labels = sources([*files])
        if (count := len(set(labels))) == 1 < len(files):
            say(f"By their names the {len(files)} images are of one source, so those held out are like the others.")
        elif count < len(files):
            say(f"By their names the {len(files)} images are of {count} sources; each source's stay on one side.")
        division = Division(*split([*files], labels=labels))
    return _present(division, files, fresh, folder, generator)


def resume(folder: Path, limit: int | None, fresh: bool, run: Path) -> Images:
    """Divide the images of a run that goes on from the checkpoint ``run`` as they were; say what is new or missing.

    New images are trained on, except for variants of images that are held out. For a checkpoint without lists, from
    before they were kept, the division is that of a folder that has not changed. Raises UserError.
    """
    known = Division.read(run)
    files = {name_below(folder, path): path for path in find_images(folder, None if known else limit, say)}
    if known:
        division = _extended(known, [*files], fresh, limit)
        _tell(known, division, files.keys(), folder)
    elif fresh:
        division = Division([], [*files])
    else:
        division = Division(*split([*files], labels=range(len(files))))
        say(
            f"{run} doesn't list its images, as checkpoints do now: if {folder} has changed since, images that were "
            "held out are trained on."
        )
    return _present(division, files, fresh, folder, run)


def name_below(folder: Path, path: Path) -> str:
    """The name of an image as a division has it."""
    return path.relative_to(folder).as_posix()


def _extended(known: Division, names: Sequence[str], fresh: bool, limit: int | None = None) -> Division:
    """The division with the names that are new; ``limit`` is on all together."""
    listed = {*known.training, *known.held_out}
    new = [name for name in names if name not in listed]
    if limit is not None:
        new = new[: max(0, limit - len(listed))]
    every = [*listed, *new]
    source = dict(zip(every, sources(every), strict=True))
    learnt = {source[name] for name in known.training}
    judged = {source[name] for name in known.held_out} - learnt
    missing = {*known.held_out} - {*names}
    moved = {name.rpartition("/")[2] for name in missing}  # perhaps to another folder
    if fresh:
        held_out = {name for name in new if source[name] not in learnt}
    else:
        held_out = {name for name in new if source[name] in judged or name.rpartition("/")[2] in moved}
    training = [name for name in new if name not in held_out and not fresh]
    return Division([*known.training, *training], [*known.held_out, *(name for name in new if name in held_out)])


def _tell(known: Division, division: Division, present: Set[str], folder: Path) -> None:
    """Name the images that are missing from the folder, and the new ones by what becomes of them."""
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


def _present(division: Division, files: Mapping[str, Path], fresh: bool, folder: Path, source: Path | None) -> Images:
    """The division with its files. Raises UserError where a side has none; ``source`` is where its lists come from."""
    training = [files[name] for name in division.training if name in files]
    held_out = [files[name] for name in division.held_out if name in files]
    if not held_out or not (training or fresh):
        side = "trains on" if held_out else "holds out"
        raise UserError(
            f"None of the images in {folder} is one that {source} {side}: give the folder that it was trained on."
        )
    return Images(division, training, held_out)
