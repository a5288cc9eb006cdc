"""Which images are variants of one source: crops, copies, turned, resized or augmented versions, by their names alone.

A mark at the end of a name is left out, and what remains names the source: photo_001_crop3, photo_001-rot90,
photo_001@2x, photo_001_640x480 and photo_001.jpg are all photo_001. So are:

    HR/0001.png, X4/0001x4.png       marks in a folder's name count too
    0012/crop1.png, 0012/crop2.png   a name that is only a mark belongs to its folder
    clip/1.png, clip/2.png           so do numbered files, up to 100 in a folder and a third of all images
    a.png, a (1).png, crop_a.png     brackets, and marks in front, count where a.png is there too
    00012-03-a.png, 00012-04-a.png   what ``data.save_augmented`` writes; and a.png, where it is there

Versions are no marks: 7209-v1.png and 7209-v2.png are QR codes of one text, and different pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from os.path import splitext

SERIES = 100  # numbered images in a folder that are taken for those of one source

_WORD = "(?:{})".format(
    "|".join(
        "aug augmented bicubic block blur blurred blurry bright brightness contrast copy crop cropped dark edited flip "
        "flip[-_]?[hv] flipped frame gamma gt hflip hq hr jitter jpeg large lq lr mirror mirrored noise noisy orig "
        "original part patch piece resized roi rot rotate rotated rotation scale scaled shear shift shifted slice "
        "small sr thumb thumbnail tile turned ud var variant vflip warp warped zoom zoomed".split()
    )
)
_GAP = r"[-_. @]+"
_SUFFIX = re.compile(
    rf"(?:(?:^|{_GAP})(?:{_WORD}(?:e?s)?\d*(?:{_GAP}\d+)*(?: ?\(\d+\))?|x\d|\dx)|{_GAP}\d+x\d+|(?<=\w)x[2348])$"
)
_BESIDE = (re.compile(rf"(?:\d{{5}}-\d\d|copy of|{_WORD}\d*){_GAP}(.+)"), re.compile(r"(.+?) ?\(\d+\)"))
_AUGMENTED = re.compile(r"^(\d{5}-)\d\d-(?=.)")


def sources(names: Sequence[str]) -> list[tuple[str, ...]]:
    """A label for each image, given as a path with slashes; variants of one source have the same."""
    lower = [name.casefold() for name in names]
    split = [(_folder(path), splitext(name)[0]) for path, _, name in (name.rpartition("/") for name in lower)]
    above = _common(min(split)[0], max(split)[0])
    split = [(folder[above:], stem) for folder, stem in split]
    present = set(split)
    stripped = [(folder, _source(folder, stem, present)) for folder, stem in split]
    numbered = Counter(folder for folder, stem in stripped if stem.isdecimal())
    series = {folder for folder, count in numbered.items() if folder and count <= min(SERIES, len(names) // 3)}
    labels = []
    for name, (folder, stem) in zip(lower, stripped, strict=True):
        whole_folder = not stem or (stem.isdecimal() and folder in series)
        labels.append((folder if whole_folder else (*folder, stem)) or (name,))
    return labels


def _common(first: tuple[str, ...], last: tuple[str, ...]) -> int:
    """How many folders above all images are the same: those above the first and the last in order."""
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


@lru_cache(maxsize=1024)
def _folder(path: str) -> tuple[str, ...]:
    """The parts of a folder's path without marks."""
    return tuple(part for part in map(_without_marks, path.split("/")) if part)


def _source(folder: tuple[str, ...], stem: str, present: set[tuple[tuple[str, ...], str]]) -> str:
    for pattern in _BESIDE:
        if (match := pattern.fullmatch(stem)) and (folder, match[1]) in present:
            stem = match[1]
    return _AUGMENTED.sub(r"\1", _without_marks(stem))


def _without_marks(name: str) -> str:
    while match := _SUFFIX.search(name):
        name = name[: match.start()]
    return name
