"""QR codes: random texts, their modules, and images in which each pixel is the mean over its area.

Texts that end in 7 are reserved for ``benchmarks/qr`` and never used for training. The modules need ``pip install
qrcode``.
"""

from __future__ import annotations

import string
from types import ModuleType

import numpy as np
from PIL import Image

from tinysrgan.core.errors import UserError

VERSIONS = (1, 2, 3, 4)
LEVELS = {"L": 1, "M": 0, "Q": 3, "H": 2}  # levels of error correction, and their codes in the format information
KINDS = ("digits", "capitals", "address")
CAPITALS = string.digits + string.ascii_uppercase + " $%*+-./:"  # QR's alphanumeric mode
ADDRESS = string.ascii_lowercase + string.digits
QUIET = 4  # width of the quiet zone, in modules

# ---------------------------------------------------------------- texts


def is_reserved(text: str) -> bool:
    """Whether a text is reserved for the benchmark."""
    return text.endswith("7")


def capacity(version: int, level: str, kind: str) -> int:
    """The number of characters of a kind that fit in a symbol. Raises UserError without qrcode."""
    util = _qrcode().util
    mode = {"digits": util.MODE_NUMBER, "capitals": util.MODE_ALPHA_NUM, "address": util.MODE_8BIT_BYTE}[kind]
    bits = util.BIT_LIMIT_TABLE[LEVELS[level]][version] - 4 - util.length_in_bits(mode, version)
    if kind == "digits":  # 10 bits for three, 7 for two, 4 for one
        return 3 * (bits // 10) + (bits % 10 >= 4) + (bits % 10 >= 7)
    if kind == "capitals":  # 11 bits for two, 6 for one
        return 2 * (bits // 11) + (bits % 11 >= 6)
    return bits // 8


def payload(rng: np.random.Generator, version: int, level: str, kind: str, reserved: bool = False) -> str:
    """Random text of a kind (digits, capitals or address) that fills 60 to 100 % of a symbol.

    A full symbol has little padding that a net could memorize. reserved: whether the text is for the benchmark.
    """
    most = capacity(version, level, kind)
    length = int(rng.integers(-(-most * 6 // 10), most + 1))
    if kind == "digits":
        start, middle, end = "", string.digits, string.digits
    elif kind == "capitals":  # no space at either end: readers may drop it
        start, middle, end = "A", CAPITALS, string.digits + string.ascii_uppercase
    else:
        start = next((prefix for prefix in ("https://", "a.co/", "u/") if len(prefix) + 3 <= length), "")
        middle = end = ADDRESS
    return start + _random(rng, middle, length - len(start) - 1) + _last(rng, end, reserved)


def number(rng: np.random.Generator) -> str:
    """A random number of four digits, as in the article's public set, that is not reserved."""
    return str(rng.integers(1, 10)) + _random(rng, string.digits, 2) + _last(rng, string.digits, reserved=False)


def _random(rng: np.random.Generator, characters: str, length: int) -> str:
    return "".join(characters[i] for i in rng.integers(len(characters), size=length))


def _last(rng: np.random.Generator, characters: str, reserved: bool) -> str:
    return "7" if reserved else _random(rng, characters.replace("7", ""), 1)


# ---------------------------------------------------------------- modules and images


def modules(text: str, version: int, level: str, mask: int | None = None) -> np.ndarray:
    """The modules of a text's symbol without the quiet zone, uint8 (17 + 4 version, same): 1 is dark.

    mask: 0 to 7; None selects the best by the rules of ISO/IEC 18004. Raises ValueError if the text is too long,
    UserError without qrcode.
    """
    qrcode = _qrcode()
    code = qrcode.QRCode(version, LEVELS[level], border=0, mask_pattern=mask)
    code.add_data(text, optimize=0)
    try:
        code.make(fit=False)
    except qrcode.exceptions.DataOverflowError:
        raise ValueError(f"'{text}' is too long for a QR code of version {version}-{level}.") from None
    return np.array(code.modules, np.uint8)


def _qrcode() -> ModuleType:
    try:
        import qrcode
    except ImportError:
        raise UserError("Making QR codes needs the package qrcode: install it with `pip install qrcode`.") from None
    return qrcode


def straight(modules: np.ndarray, size: int, shift: np.ndarray) -> np.ndarray:
    """The symbol with its quiet zone as exact area means: float64 (size, size), from 0 (dark) to 255, not rounded.

    shift: (down, right), in pixels.
    """
    rows, columns = (_coverage(len(modules), size, distance) for distance in shift)
    return 255 * (1 - rows @ modules @ columns.T)


def _coverage(count: int, size: int, shift: float) -> np.ndarray:
    """(size, count): the part of each of ``size`` pixels in a row that each of ``count`` modules covers."""
    pixel = (count + 2 * QUIET) / size  # its width in modules
    left = (np.arange(size)[:, None] - shift) * pixel
    module = np.arange(count) + QUIET
    return np.clip(np.minimum(left + pixel, module + 1) - np.maximum(left, module), 0, None) / pixel


def zoom(count: int, angle: float) -> float:
    """The largest factor, up to 1, that leaves a margin of 3 % around a symbol rotated by ``angle`` degrees."""
    turn = np.radians(angle)
    return min(1.0, 0.94 * (count + 2 * QUIET) / count / (abs(np.cos(turn)) + abs(np.sin(turn))))


def turned(modules: np.ndarray, size: int, angle: float, shift: np.ndarray) -> Image.Image:
    """The symbol rotated clockwise by ``angle`` degrees, "L", four times ``size`` wide, to be reduced by 4.

    shift: (down, right), in pixels of the reduced image. ``zoom`` keeps the symbol in the frame.
    """
    count = len(modules)
    fine, turn = 4 * size, np.radians(angle)
    symbol = Image.fromarray(255 * (1 - np.pad(modules, QUIET)))
    scale = symbol.width / fine / zoom(count, angle)  # modules per fine pixel
    a, b = scale * np.cos(turn), scale * np.sin(turn)
    y, x = (fine / 2 + 4 * distance for distance in shift)  # of the centre
    centre = symbol.width / 2
    back = (a, b, centre - a * x - b * y, -b, a, centre + b * x - a * y)
    return symbol.transform((fine, fine), Image.Transform.AFFINE, back, Image.Resampling.NEAREST, fillcolor=255)
