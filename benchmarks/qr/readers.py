"""Four QR readers: functions from uint8 (H, W) to the text, or None.

The results of "zxing" are the benchmark's scores. Whether it reads an image depends to some extent on the image's size,
so "many" (scales) also reads the image at two and three times its size, each in grey and in black and white. OpenCV and
zbar are independent readers, for a cross-check.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from tinysrgan.metrics.qr_reader import read_code

Reader = Callable[[np.ndarray], str | None]


def many_scales(image: np.ndarray) -> str | None:
    """Return the first text that zxing reads at 1, 2 and 3 times the size, in grey or in black and white."""
    middle = (int(image.min()) + int(image.max())) / 2
    for scale in (1, 2, 3):
        size = (scale * image.shape[1], scale * image.shape[0])
        large = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        for shown in (large, np.where(large > middle, 255, 0).astype(np.uint8)):
            if (text := read_code(shown)) is not None:
                return text
    return None


def opencv() -> Reader:
    """Make a reader with OpenCV's QRCodeDetector. Raises ImportError without OpenCV."""
    import cv2

    detector = cv2.QRCodeDetector()

    def read(image: np.ndarray) -> str | None:
        try:
            return detector.detectAndDecode(image)[0] or None
        except (cv2.error, UnicodeDecodeError):  # raised for some images without a readable code
            return None

    return read


def zbar() -> Reader:
    """Make a reader with zbar, from zbar-py or pyzbar. Raises ImportError without a package or the zbar library."""
    try:
        from zbar import Scanner
    except ImportError:
        return _pyzbar()
    scanner = Scanner()
    return lambda image: _text([code.data for code in scanner.scan(image) if code.type == "QR-Code"])


def _pyzbar() -> Reader:
    from pyzbar import pyzbar

    return lambda image: _text([code.data for code in pyzbar.decode(image, symbols=[pyzbar.ZBarSymbol.QRCODE])])


def _text(found: list[bytes]) -> str | None:
    return found[0].decode(errors="replace") if found else None


def readers() -> tuple[dict[str, Reader], list[str]]:
    """Return the usable readers by name, and a line for each missing one."""
    found: dict[str, Reader] = {"zxing": read_code, "many": many_scales}
    absent = []
    for name, make, package in (("OpenCV", opencv, "opencv-python-headless"), ("zbar", zbar, "zbar-py")):
        try:
            found[name] = make()
        except ImportError as error:
            absent.append(f"{name} doesn't read along ({error}): pip install {package}")
    return found, absent
