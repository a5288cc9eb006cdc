"""Which images are variants of one source, judged by their names: crops, copies, rotated or resized versions.

A mark at the end of a name is removed, and the rest names the source: photo_001_crop3, photo_001-rot90, photo_001@2x,
photo_001_640x480 and photo_001.jpg all come from photo_001. Other rules:

    HR/0001.png, X4/0001x4.png       marks in folder names are removed too
    0012/crop1.png, 0012/crop2.png   a name that is only a mark belongs to its folder's source
    clip/1.png, clip/2.png           so do numbered files, if a folder has at most 100 and at most a third of all images
    a.png, a (1).png, crop_a.png     numbers in brackets and marks in front are removed if a.png exists

Versions are not marks: 7209-v1.png and 7209-v2.png are different codes of one text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from os.path import splitext

SERIES = 100  # a folder with more numbered images is a collection, not variants of one source

_WORD = "(?:{})".format(
    "|".join(
        "aug augmented bicubic block blur blurred blurry bright brightness contrast copy crop cropped dark edited flip "
        "flip[-_]?[hv] flipped frame gamma gt hflip hq hr jitter jpeg large lq lr lrbi mirror mirrored noise noisy "
        "orig original part patch piece resized roi rot rotate rotated rotation scale scaled shear shift shifted "
        "slice small sr thumb thumbnail tile turned ud var variant vflip warp warped zoom zoomed".split()
    )
)
_GAP = r"[-_. @]+"
_SUFFIX = re.compile(
    rf"(?:(?:^|{_GAP})(?:{_WORD}(?:e?s)?\d*(?:{_GAP}\d+)*(?: ?\(\d+\))?|x\d|\dx)|{_GAP}\d+x\d+|(?<=\w)x[2348])$"
)
_BESIDE = (re.compile(rf"(?:copy of|{_WORD}\d*){_GAP}(.+)"), re.compile(r"(.+?) ?\(\d+\)"))


def source_labels(names: Sequence[str]) -> list[tuple[str, ...]]:
    """A label for each image, given as a path with slashes; variants of one source get the same label."""
    lower = [name.casefold() for name in names]
    split = [(_folder(path), splitext(name)[0]) for path, _, name in (name.rpartition("/") for name in lower)]
    shared = _shared(min(split)[0], max(split)[0])  # folders above all images tell nothing
    split = [(folder[shared:], stem) for folder, stem in split]
    present = set(split)
    split = [(folder, _source(folder, stem, present)) for folder, stem in split]
    numbered = Counter(folder for folder, stem in split if stem.isdecimal())
    series = {folder for folder, count in numbered.items() if folder and count <= min(SERIES, len(names) // 3)}
    labels = []
    for name, (folder, stem) in zip(lower, split, strict=True):
        whole_folder = not stem or (stem.isdecimal() and folder in series)
        labels.append((folder if whole_folder else (*folder, stem)) or (name,))
    return labels


def _shared(first: tuple[str, ...], last: tuple[str, ...]) -> int:
    """How many folders at the start of both paths are the same; of the first and last in order, so those of all."""
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


@lru_cache(maxsize=1024)
def _folder(path: str) -> tuple[str, ...]:
    """The parts of a folder's path, without marks."""
    return tuple(part for part in map(without_marks, path.split("/")) if part)


def _source(folder: tuple[str, ...], stem: str, present: set[tuple[tuple[str, ...], str]]) -> str:
    """A file's name without its ending and marks. ``present`` holds all names, for the marks that need the original."""
    for pattern in _BESIDE:
        if (match := pattern.fullmatch(stem)) and (folder, match[1]) in present:
            stem = match[1]
    return without_marks(stem)


def without_marks(name: str) -> str:
    """A name without the marks at its end: baby for babyx4 or baby_LR, in lower case."""
    name = name.casefold()
    while match := _SUFFIX.search(name):
        name = name[: match.start()]
    return name
