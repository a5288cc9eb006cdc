"""Reading QR codes, and counting how many upscaled codes scan with exactly the right text.

The reader is zxing-cpp (https://github.com/zxing-cpp/zxing-cpp) with its default options but for the text, which is as
the code holds it. It is imported on first use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinysrgan.core.errors import UserError

LONGEST_SIDE = 65535  # pixels; of an image with a longer side, the reader sees every second, third ... pixel
MISSING = "Reading QR codes needs the package zxing-cpp: install it with `pip install zxing-cpp`."


def available() -> bool:
    """Whether zxing-cpp can be imported. Without it the functions below raise ImportError(MISSING)."""
    try:
        _zxing()
    except ImportError:
        return False
    return True


def read_codes(image: np.ndarray) -> list[str]:
    """The texts of all readable QR codes in a uint8 image, (H, W) or RGB (H, W, 3)."""
    return [code.text for code in _barcodes(image)]


def read_code(image: np.ndarray) -> str | None:
    """The text of the first QR code found in a uint8 image, (H, W) or RGB (H, W, 3); None if there is none."""
    return next(iter(read_codes(image)), None)


@dataclass(frozen=True)
class Code:
    """A QR code that the reader read: its text, and its corners in pixels, float (4, 2) as (x, y).

    corners: top left, top right, bottom right, bottom left of the symbol. unused: which part, 0 to 1, of its error
    correction wasn't needed; None where the reader doesn't tell, as before zxing-cpp 3.
    """

    text: str
    corners: np.ndarray
    unused: float | None = None


def located_codes(image: np.ndarray) -> list[Code]:
    """Every QR code that the reader reads in a uint8 image, (H, W) or RGB (H, W, 3), with where it lies."""
    codes = []
    for code in _barcodes(image):
        place = code.position
        corners = [(p.x, p.y) for p in (place.top_left, place.top_right, place.bottom_right, place.bottom_left)]
        codes.append(Code(code.text, np.array(corners, float) * _step(image), getattr(code, "extra", {}).get("UEC")))
    return codes


def modules_of(image: np.ndarray) -> np.ndarray | None:
    """The modules of the first QR code in a uint8 image, uint8 (n, n), 1 is dark; None if no code can be read.

    Raises UserError before zxing-cpp 2.3, which is the first to give them.
    """
    for code in _barcodes(image):
        if not hasattr(code, "to_image"):
            raise UserError("--augment camera needs zxing-cpp 2.3 or newer: pip install --upgrade zxing-cpp")
        return (np.asarray(code.to_image(scale=1, add_quiet_zones=False)) == 0).astype(np.uint8)
    return None


def qr_version(image: np.ndarray) -> int | None:
    """The version, 1 to 40, of the QR code in a uint8 image, (H, W) or RGB (H, W, 3), as reported by the reader.

    None if no code can be read, or before zxing-cpp 3, which is the first to report it.
    """
    versions = [getattr(code, "extra", {}).get("Version") for code in _barcodes(image)]
    return int(versions[0]) if versions and versions[0] else None


def version_of(path: str | Path) -> int | None:
    """The version, 1 to 40, at the end of a file's name, as in ``7209-v4.png``; None if there is none."""
    match = re.search(r"-v(\d{1,2})$", Path(path).stem)
    return int(match[1]) if match and 1 <= int(match[1]) <= 40 else None


def interval(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a rate, both ends in %; (0, 100) for no trials.

    Wilson 1927: unlike the normal approximation it stays within 0..100, and is not empty for 0 of 10 or 10 of 10.
    Raises ValueError unless 0 <= successes <= total.
    """
    if not 0 <= successes <= total:
        raise ValueError(f"There can't be {successes} successes in {total} trials.")
    if not total:
        return 0.0, 100.0
    z, p = 1.959964, successes / total
    centre = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    low, high = ((centre + side) / (1 + z * z / total) for side in (-half, half))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)


@dataclass
class ScanTally:
    """Counts how many upscaled codes scan, by version.

    The truth is the reader's text for the full-size original. Originals that can't be read (truth None) are counted in
    ``no_code`` only.
    """

    readings: list[tuple[str, int | None, str | None]] = field(default_factory=list)  # truth, version, text read
    no_code: int = 0

    def add(self, truth: str | None, version: int | None, text: str | None) -> None:
        """Record that the reader read ``text`` (None: nothing) in a code that says ``truth``."""
        if truth is None:
            self.no_code += 1
        else:
            self.readings.append((truth, version, text))

    @property
    def versions(self) -> list[int]:
        """The versions seen, ascending. Codes of unknown version count only towards all codes."""
        return sorted({version for _, version, _ in self.readings if version is not None})

    def count(self, versions: Collection[int] | None = None) -> int:
        """The number of codes of these versions (None: of all codes)."""
        return len(self._texts(versions))

    def scanned(self, versions: Collection[int] | None = None) -> int:
        """The number of them that gave exactly the right text."""
        return sum(text == truth for truth, text in self._texts(versions))

    def misreads(self, versions: Collection[int] | None = None) -> int:
        """The number of them that gave a wrong text."""
        return sum(text is not None and text != truth for truth, text in self._texts(versions))

    def rate(self, versions: Collection[int] | None = None) -> float:
        """The share of them that gave exactly the right text, in %; NaN without codes."""
        count = self.count(versions)
        return 100 * self.scanned(versions) / count if count else math.nan

    def _texts(self, versions: Collection[int] | None) -> list[tuple[str, str | None]]:
        return [(truth, text) for truth, v, text in self.readings if versions is None or v in versions]


def _zxing() -> ModuleType:
    try:
        import zxingcpp
    except ImportError:
        raise ImportError(MISSING) from None
    return zxingcpp


def _step(image: np.ndarray) -> int:
    """The distance in pixels of those that the reader sees: 1 unless a side is longer than it takes."""
    return -(-max(image.shape[:2]) // LONGEST_SIDE)


def _barcodes(image: np.ndarray) -> list[Any]:
    """The reader's results for the valid QR codes in an image."""
    zxing = _zxing()
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise ValueError(f"The QR reader takes uint8 images (H, W) or (H, W, 3), not {image.dtype} {image.shape}.")
    # From zxing-cpp 3 on, ``QRCode`` includes Micro QR codes, which are not wanted here.
    formats = getattr(zxing.BarcodeFormat, "QRCodeModel2", zxing.BarcodeFormat.QRCode)
    seen = image[:: _step(image), :: _step(image)]
    pixels = np.ascontiguousarray(seen[..., ::-1] if image.ndim == 3 else seen)  # BGR
    plain = zxing.TextMode.Plain  # the default writes <GS> for a control character
    return [code for code in zxing.read_barcodes(pixels, formats=formats, text_mode=plain) if code.valid]
