"""Image files as 8-bit pixels, and conversions of pixels: to the range of the nets and back, reduced, enlarged."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tinysrgan.core.errors import UserError
from tinysrgan.core.quiet import quiet_decoders
from tinysrgan.data.image_modes import eight_bits, lay_on_white

# The formats that are read and written, by Pillow's names, and their file endings. This is a list of what is allowed:
# Pillow also opens files that are not pictures, and starts other programs for some. An MPO is a JPEG with extra data.
_ENDINGS = {
    "PNG": ".png .apng",
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "BMP": ".bmp",
    "GIF": ".gif",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "AVIF": ".avif .avifs",
    "HEIF": ".heic .heif .hif",
}
_ADVICE = {
    "AVIF": "AVIF needs Pillow 11.3 or newer: run `pip install --upgrade pillow`, or convert them to PNG",
    "HEIF": "HEIC is read after `pip install pillow-heif`, or convert them to JPEG or PNG",
}
_absent = {"HEIF"}
with suppress(ImportError):
    import_module("pillow_heif").register_heif_opener()
    _absent.remove("HEIF")
if find_spec("PIL._avif") is None:
    _absent.add("AVIF")

FORMATS = tuple(name for name in _ENDINGS if name not in _absent)
ENDINGS = {ending: name for name in FORMATS for ending in _ENDINGS[name].split()}  # the format of each ending

LARGEST = 64_000_000  # pixels; an image may be larger than memory
SMALLEST = 16  # pixels on the shorter side; smaller images teach nothing

# Pillow warns about some damaged files, even those that it then reads; DataError tells the user enough.
warnings.filterwarnings("ignore", module=r"PIL\.")


class DataError(UserError):
    """An image, or a folder of them, can't be used."""


def advice(endings: Iterable[str]) -> str:
    """What to install to read files with these endings; empty if no package is missing."""
    found = set(endings)
    return "; ".join(_ADVICE[name] for name in sorted(_absent) if found & set(_ENDINGS[name].split()))


def file_format(target: Path) -> str:
    """Pillow's name of the format that a file's ending stands for. Raises UserError if it stands for none."""
    if (ending := target.suffix.lower()) not in ENDINGS:
        raise UserError(f"{target} doesn't end in a format that can be written: {', '.join(sorted(ENDINGS))}.")
    return ENDINGS[ending]


def read_image(path: Path) -> Image.Image:
    """Read an image file as RGB. Raises DataError, which names the file and the reason.

    Transparent images are composited on white, 16 bits become 8, the EXIF orientation is applied, and an animation
    gives its first frame.
    """
    return decode(path).convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, as stored, without decoding it. Raises DataError."""
    try:
        with quiet_decoders(), Image.open(str(path), formats=FORMATS) as file:
            return file.size
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise DataError(f"{path}: can't be read as an image.") from error


def decode(path: Path) -> Image.Image:
    """Like ``read_image``, but a grey image keeps mode "L", which takes a quarter of the memory and time."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise DataError(f"{path}: is not a file")
        with quiet_decoders(), Image.open(str(path), formats=FORMATS) as file:
            width, height = file.size
            if width * height > LARGEST:
                raise DataError(f"{path}: {width}x{height} pixels are too many, the limit is {LARGEST:,}")
            if min(width, height) < SMALLEST:
                raise DataError(f"{path}: {width}x{height} pixels are too few, {SMALLEST} on a side is the least")
            image = lay_on_white(eight_bits(file))
            if image.mode == "RGB":
                red, green, blue = image.split()
                return red if red == green == blue else image
            return image
    except DataError:
        raise
    except UserError as error:
        raise DataError(f"{path}: {str(error).removesuffix('.')}") from None
    except UnidentifiedImageError:
        known = f"{path}: is not an image, or of a kind that isn't read ({', '.join(FORMATS)} are)"
        raise DataError("; ".join(filter(None, [known, advice([path.suffix.lower()])]))) from None
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"{path}: can't be read as an image ({reason})") from error


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels, 0..255, as float32 in [-1, 1], the range inside the nets."""
    return pixels.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """A net's output, about [-1, 1], as uint8 pixels."""
    return quantize(pixels * 127.5 + 127.5)


def quantize(levels: np.ndarray) -> np.ndarray:
    """Real levels, 0..255, as uint8: rounded and clipped."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def area_average(image: Image.Image, size: int) -> np.ndarray:
    """Reduce an "L" or "RGB" image to uint8 (size, size) or (size, size, 3): each pixel is the mean of an area.

    Pixels at the edge of an area count in part, as in OpenCV's INTER_AREA. Pillow's BOX counts them wholly or not at
    all, which changes grey levels of a QR code by up to 20.
    """
    rows = _means(np.asarray(image), size)
    return quantize(_means(rows.swapaxes(0, 1), size).swapaxes(0, 1))


def _means(pixels: np.ndarray, size: int) -> np.ndarray:
    """Means over ``size`` intervals of equal length along the first axis, float32 (size, ...)."""
    edges = np.linspace(0, len(pixels), size + 1)[:-1]
    first = edges.astype(int)
    sums = np.add.reduceat(pixels, first, axis=0, dtype=np.float32)
    sums[:-1][first[:-1] == first[1:]] = 0  # an interval within one pixel, for which reduceat returns that pixel
    part = (pixels[first[1:]].T * (edges - first)[1:]).T  # the part of an edge pixel in the interval before it
    sums[:-1] += part
    sums[1:] -= part
    return sums * (size / len(pixels))


def enlarge(pixels: np.ndarray, scale: int, resampling: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
    """Interpolate uint8 (H, W[, 3]) to (scale H, scale W[, 3]) with one of Pillow's filters."""
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))
