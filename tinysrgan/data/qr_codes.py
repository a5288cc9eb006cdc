"""QR codes: random texts, their modules, and pictures of them as a camera with square pixels would see them.

Texts that end in 7 are never trained on: they are kept for ``benchmarks/qr``, which takes no others. The modules need
``pip install qrcode``.
"""

from __future__ import annotations

import string

import numpy as np
from PIL import Image

MISSING = "Making QR codes needs the package qrcode: install it with `pip install qrcode`."

VERSIONS = (1, 2, 3, 4)
LEVELS = {"L": 1, "M": 0, "Q": 3, "H": 2}  # of error correction, and their numbers in the symbol
KINDS = ("digits", "capitals", "address")
CAPITALS = string.digits + string.ascii_uppercase + " $%*+-./:"  # QR's alphanumeric mode
ADDRESS = string.ascii_lowercase + string.digits
CODEWORDS = {  # of data, in versions 1 to 10 (ISO/IEC 18004, table 7)
    "L": (19, 34, 55, 80, 108, 136, 156, 194, 232, 274),
    "M": (16, 28, 44, 64, 86, 108, 124, 154, 182, 216),
    "Q": (13, 22, 34, 48, 62, 76, 88, 110, 132, 154),
    "H": (9, 16, 26, 36, 46, 60, 66, 86, 100, 122),
}
# Bits of a segment's header: the mode, and the count of characters in versions 1 to 9 and from 10 on (table 3).
HEADERS = {"digits": (4 + 10, 4 + 12), "capitals": (4 + 9, 4 + 11), "address": (4 + 8, 4 + 16)}
QUIET = 4  # modules of white around a symbol

# ---------------------------------------------------------------- what a code says


def is_reserved(text: str) -> bool:
    """Whether a text is kept for the benchmark: four-digit numbers that are 7 modulo 10, and all others that end so."""
    return text.endswith("7")


def capacity(version: int, level: str, kind: str) -> int:
    """How many characters of a kind a symbol of version 1 to 10 holds."""
    bits = 8 * CODEWORDS[level][version - 1] - HEADERS[kind][version >= 10]
    if kind == "digits":  # 10 bits for three, 7 for two, 4 for one
        return 3 * (bits // 10) + (bits % 10 >= 4) + (bits % 10 >= 7)
    if kind == "capitals":  # 11 bits for two, 6 for one
        return 2 * (bits // 11) + (bits % 11 >= 6)
    return bits // 8


def payload(rng: np.random.Generator, version: int, level: str, kind: str, reserved: bool = False) -> str:
    """Random text of a kind (digits, capitals or address) that fills 60 to 100 % of a symbol.

    So full a symbol leaves little to learn by heart. reserved: whether the text is one of the benchmark's.
    """
    most = capacity(version, level, kind)
    length = int(rng.integers(-(-most * 6 // 10), most + 1))
    if kind == "digits":
        start, middle, end = "", string.digits, string.digits
    elif kind == "capitals":  # no space at either end, since readers may drop it
        start, middle, end = "A", CAPITALS, string.digits + string.ascii_uppercase
    else:
        start = next((prefix for prefix in ("https://", "a.co/", "u/") if len(prefix) + 3 <= length), "")
        middle = end = ADDRESS
    return start + _random(rng, middle, length - len(start) - 1) + _last(rng, end, reserved)


def number(rng: np.random.Generator) -> str:
    """A random number of four digits, as in the article's public set, but none of the benchmark's."""
    return str(rng.integers(1, 10)) + _random(rng, string.digits, 2) + _last(rng, string.digits, reserved=False)


def _random(rng: np.random.Generator, characters: str, length: int) -> str:
    return "".join(characters[i] for i in rng.integers(len(characters), size=length))


def _last(rng: np.random.Generator, characters: str, reserved: bool) -> str:
    return "7" if reserved else _random(rng, characters.replace("7", ""), 1)


# ---------------------------------------------------------------- what it looks like


def modules(text: str, version: int, level: str, mask: int | None = None) -> np.ndarray:
    """The modules of a text's symbol without the quiet zone, uint8 (17 + 4 version, same): 1 is dark.

    mask: 0 to 7; None takes the one that ISO/IEC 18004 finds best. Raises ValueError where the text is too long,
    ImportError without qrcode.
    """
    try:
        import qrcode
    except ImportError:
        raise ImportError(MISSING) from None
    code = qrcode.QRCode(version, LEVELS[level], border=0, mask_pattern=mask)
    code.add_data(text, optimize=0)
    try:
        code.make(fit=False)
    except qrcode.exceptions.DataOverflowError:
        raise ValueError(f"'{text}' is too long for a QR code of version {version}-{level}.") from None
    return np.array(code.modules, np.uint8)


def straight(modules: np.ndarray, size: int, shift: np.ndarray) -> np.ndarray:
    """The symbol with its quiet zone on size x size pixels, exactly: float64, from 0 for dark to 255, not rounded.

    shift: (down, right), in pixels.
    """
    rows, columns = (_coverage(len(modules), size, distance) for distance in shift)
    return 255 * (1 - rows @ modules @ columns.T)


def _coverage(count: int, size: int, shift: float) -> np.ndarray:
    """(size, count): which part of each of ``size`` pixels in a row belongs to each of ``count`` modules."""
    pixel = (count + 2 * QUIET) / size  # its width in modules
    left = (np.arange(size)[:, None] - shift) * pixel
    module = np.arange(count) + QUIET
    return np.clip(np.minimum(left + pixel, module + 1) - np.maximum(left, module), 0, None) / pixel


def zoom(count: int, angle: float) -> float:
    """The largest factor, up to 1, at which a symbol turned by ``angle`` degrees leaves 3 % free on each side."""
    turn = np.radians(angle)
    return min(1.0, 0.94 * (count + 2 * QUIET) / count / (abs(np.cos(turn)) + abs(np.sin(turn))))


def turned(modules: np.ndarray, size: int, angle: float, shift: np.ndarray) -> Image.Image:
    """The symbol on white at four times ``size``, to be reduced by 4; turned clockwise by ``angle`` degrees.

    shift: (down, right), in pixels of the reduced image. What is turned is made smaller by ``zoom``, so that it stays
    in the frame.
    """
    count = len(modules)
    fine, turn = 4 * size, np.radians(angle)
    symbol = Image.fromarray(255 * (1 - np.pad(modules, QUIET)))
    scale = symbol.width / fine / zoom(count, angle)  # modules a fine pixel
    a, b = scale * np.cos(turn), scale * np.sin(turn)
    y, x = (fine / 2 + 4 * distance for distance in shift)  # of the centre
    centre = symbol.width / 2
    back = (a, b, centre - a * x - b * y, -b, a, centre + b * x - a * y)
    return symbol.transform((fine, fine), Image.Transform.AFFINE, back, Image.Resampling.NEAREST, fillcolor=255)
