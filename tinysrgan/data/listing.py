"""The image files of a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinysrgan.core.cli import printable
from tinysrgan.data.images import ENDINGS, DataError, advice

RUN_PICTURES = ("losses.png", "pictures/step-*.png")  # that a training run writes to its folder


def find_images(folder: Path, limit: int | None = None, tell: Callable[[str], object] | None = None) -> list[Path]:
    """All image files in a folder and its subfolders, by their endings, sorted; or ``limit`` of them at random.

    No file is opened. The choice is always the same. Links to folders are followed, and each folder is visited once.
    Hidden files and folders are left out, and pictures that a training run in the folder wrote: they show held-out
    images. ``tell`` gets a sentence that counts these pictures and the files of other kinds, if there are any. Raises
    DataError if there are no images or a folder can't be listed.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "doesn't exist"
        raise DataError(f"{folder} {what}: give a folder of images, for example data/qr.")
    found, made, seen, others = set[Path](), set[Path](), set(), Counter[str]()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        first_visit = (real := os.path.realpath(place)) not in seen
        seen.add(real)
        folders[:] = sorted(name for name in folders if first_visit and name[0] != ".")
        if first_visit and "log.csv" in files and {"checkpoint.h5", "generator.h5"} & {*files}:
            made.update(path for name in RUN_PICTURES for path in Path(place).glob(name))
        for name in files if first_visit else ():
            if (ending := os.path.splitext(name)[1].lower()) in ENDINGS and name[0] != ".":
                found.add(Path(place, name))
            elif name[0] != ".":
                others[ending] += 1
    others += Counter({"made by training runs": len(made & found)})  # without a 0
    left_out = f"Left out in {folder}: {_kinds(others)}." if others else ""
    if not found - made:
        nothing = f"{folder} holds no images ({', '.join(sorted(ENDINGS))}): put some there, or try data/qr."
        raise DataError(" ".join(filter(None, [nothing, left_out])))
    if tell is not None and left_out:
        tell(left_out)
    return some(sorted(found - made), limit)


def some(paths: list[Path], limit: int | None) -> list[Path]:
    """``limit`` random paths in their original order, always the same; all paths if ``limit`` is None."""
    if limit is None or limit >= len(paths):
        return paths
    chosen = np.random.default_rng(12).permutation(len(paths))[:limit]
    return [paths[i] for i in sorted(chosen)]


def _kinds(endings: Counter[str]) -> str:
    """The count of files for each ending, the most frequent first, with advice on formats that need a package."""
    ordered = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    counts = [f"{count} {printable(ending) or 'without an ending'}" for ending, count in ordered[:8]]
    if rest := sum(count for _, count in ordered[8:]):
        counts.append(f"{rest} of other kinds")
    return "; ".join(filter(None, [", ".join(counts), advice(endings)]))


def _cannot_list(error: OSError) -> None:
    raise DataError(f"{error.filename} can't be listed: {error.strerror}.") from error
