"""The codes that a search has found, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from tinysrgan.inference.rescuing.grid import area
from tinysrgan.metrics import qr_reader

MARGIN = 0.25  # margin around a code in its picture, as a part of its side


@dataclass(frozen=True)
class Rescued:
    """A code that was read.

    text: its text. corners: float (4, 2), its top left, top right, bottom right and bottom left in the picture, as
    (x, y) in pixels. how: a description of the way in which it was read. picture: a clear picture of the code that
    scans. sure: whether the reader had error correction left.
    """

    text: str
    corners: np.ndarray
    how: str
    picture: Image.Image
    sure: bool = True


@dataclass(frozen=True)
class Result:
    """The result of a search in a picture.

    codes: the codes that were read. disputed: the texts of every place where attempts disagree; ``codes`` contains
    none of them. complete: whether the search finished before its time limit.
    """

    codes: list[Rescued] = field(default_factory=list)
    disputed: list[tuple[str, ...]] = field(default_factory=list)
    complete: bool = True

    @property
    def texts(self) -> list[str]:
        return [code.text for code in self.codes]

    @property
    def picture(self) -> Image.Image | None:
        """The pictures of all codes side by side, in grey; None without codes."""
        if not self.codes:
            return None
        pictures = [code.picture for code in self.codes]
        sheet = Image.new("L", (sum(p.width for p in pictures), max(p.height for p in pictures)), 255)
        left = 0
        for picture in pictures:
            sheet.paste(picture, (left, 0))
            left += picture.width
        return sheet


class Findings:
    """The codes read so far, one for each place. If texts at one place disagree, none of them counts.

    A text is most likely wrong if the reader used up its error correction. Such a text counts only once it was read
    twice.
    """

    def __init__(self) -> None:
        self._places: list[tuple[np.ndarray, dict[str, Rescued]]] = []

    def __bool__(self) -> bool:
        """Whether any place is settled: by a text that counts or by a dispute."""
        return any(map(_settled, self._texts()))

    def add(self, code: Rescued) -> None:
        """Add a code; a repeated text makes the earlier one sure."""
        for corners, texts in self._places:
            if _overlap(code.corners, corners):
                before = texts.get(code.text)
                texts[code.text] = replace(before, sure=True) if before else code
                return
        self._places.append((code.corners, {code.text: code}))

    def show(self, picture: Image.Image, times: float, how: str) -> None:
        """Read a picture that is ``times`` as large as the searched picture, and add its codes."""
        pixels = np.asarray(picture)
        for code in qr_reader.located_codes(pixels):
            self.add(Rescued(code.text, code.corners / times, how, _cut(picture, code), code.unused != 0))

    def covers(self, corners: np.ndarray) -> bool:
        """Whether a place (4, 2) is settled: by a text that counts or by a dispute."""
        return any(_settled(texts) and _overlap(corners, others) for others, texts in self._places)

    def result(self, complete: bool) -> Result:
        every = [list(texts.values()) for texts in self._texts()]
        codes = [codes[0] for codes in every if len(codes) == 1 and codes[0].sure]
        return Result(codes, [tuple(code.text for code in codes) for codes in every if len(codes) > 1], complete)

    def _texts(self) -> list[dict[str, Rescued]]:
        return [texts for _, texts in self._places]


def _settled(texts: dict[str, Rescued]) -> bool:
    return len(texts) > 1 or any(code.sure for code in texts.values())


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the centre of one quadrilateral (4, 2) lies in the other."""
    return _inside(one.mean(axis=0), other) or _inside(other.mean(axis=0), one)


def _inside(point: np.ndarray, corners: np.ndarray) -> bool:
    edges = np.roll(corners, -1, axis=0) - corners
    to_point = point - corners
    sides = edges[:, 0] * to_point[:, 1] - edges[:, 1] * to_point[:, 0]
    return bool((sides > 0).all() or (sides < 0).all())


def _cut(picture: Image.Image, code: qr_reader.Code) -> Image.Image:
    """The part of a picture that shows a code, if that part scans too; otherwise the picture."""
    margin = MARGIN * abs(area(code.corners)) ** 0.5
    left, top = np.maximum(code.corners.min(axis=0) - margin, 0).astype(int)
    right, bottom = np.minimum(np.ceil(code.corners.max(axis=0) + margin), picture.size).astype(int)
    part = picture.crop((int(left), int(top), int(right), int(bottom)))
    return part if qr_reader.read_codes(np.asarray(part)) == [code.text] else picture
