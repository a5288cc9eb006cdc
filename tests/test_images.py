"""Whatever lies in a user's folder is read as RGB, or refused with one sentence that names it."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tinysrgan.errors import UserError
from tinysrgan.images import DataError, bicubic, decode, read_image, to_uint8, to_unit

rng = np.random.default_rng(0)
COLOUR = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]
ON_WHITE = (0.25 * COLOUR + 0.75 * 255).round()  # a quarter opaque
QUARTER = np.full((20, 30, 1), 64, np.uint8)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def save(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def read(path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", ["a.png", "b.bmp", "c.tiff", "d.ppm", "E.PNG", "mit Leerzeichen.png", "画像 é.png"])
def test_lossless_colour_is_read_as_it_is(name, tmp_path):
    assert np.array_equal(read(save(tmp_path / name, COLOUR)), COLOUR)


def test_grey_becomes_three_equal_channels(tmp_path):
    assert np.array_equal(read(save(tmp_path / "a.png", GREY)), rgb(GREY))


def test_one_bit(tmp_path):
    bits = GREY > 127
    assert np.array_equal(read(save(tmp_path / "a.png", bits)), rgb(255 * bits.astype(np.uint8)))


def test_transparency_is_laid_on_white(tmp_path):
    colour = read(save(tmp_path / "rgba.png", np.concatenate([COLOUR, QUARTER], 2)))
    grey = read(save(tmp_path / "la.png", np.concatenate([GREY[:, :, None], QUARTER], 2)))
    assert np.abs(colour - ON_WHITE).max() <= 1
    assert np.abs(grey - ON_WHITE[:, :, :1]).max() <= 1


def test_palette_with_and_without_a_transparent_colour(tmp_path):
    image = Image.fromarray((GREY > 127).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    expected = np.where(rgb(GREY) > 127, (200, 100, 50), (10, 20, 30))
    assert np.array_equal(read(save(tmp_path / "a.png", image)), expected)
    expected = np.where(rgb(GREY) > 127, (200, 100, 50), 255)
    assert np.array_equal(read(save(tmp_path / "b.png", image, transparency=0)), expected)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_16_bits_are_scaled_and_not_clipped(name, tmp_path):
    pixels = np.repeat(np.array([[0, 255, 257, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16), 18, axis=0)
    pixels = np.repeat(pixels, 4, axis=1)
    assert read(save(tmp_path / name, pixels))[0, ::4, 0].tolist() == [0, 1, 1, 100, 101, 255]


def test_cmyk(tmp_path):
    inks = np.zeros((20, 30, 4), np.uint8)
    inks[:, :10, 0] = inks[:, 10:20, 1] = inks[:, 20:, 3] = 255
    image = read(save(tmp_path / "a.tiff", Image.fromarray(inks, "CMYK")))
    assert image[0, [0, 10, 20]].tolist() == [[0, 255, 255], [255, 0, 255], [0, 0, 0]]  # cyan, magenta, black
    assert read(save(tmp_path / "a.jpg", Image.fromarray(inks, "CMYK"))).shape == (20, 30, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
def test_exif_says_how_to_turn_it(name, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    options = {"lossless": True} if name.endswith("webp") else {}
    assert np.array_equal(read(save(tmp_path / name, COLOUR, exif=exif, **options)), np.rot90(COLOUR, -1))


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read(tmp_path / "a.gif") == (255, 0, 0)).all()


def test_the_content_counts_and_not_the_ending(tmp_path):
    assert np.array_equal(read(save(tmp_path / "a.jpg", COLOUR, format="PNG")), COLOUR)


def test_grey_stays_compact_however_it_was_saved(tmp_path):
    for name, pixels in (
        ("l.png", GREY),
        ("bits.png", GREY > 127),
        ("rgb.png", rgb(GREY)),
        ("16.png", 257 * GREY.astype(np.uint16)),
    ):
        assert decode(save(tmp_path / name, pixels)).mode == "L", name
    assert decode(save(tmp_path / "opaque.png", np.concatenate([rgb(GREY), 0 * QUARTER + 255], 2))).mode == "L"
    assert decode(save(tmp_path / "colour.png", COLOUR)).mode == "RGB"


# ---------------------------------------------------------------- what is refused


def huge_png(side: int) -> bytes:
    """A few bytes that claim to be an image of side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged(path, ending: str):
    """An image file without its second half."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = save(path.with_suffix(f".whole.{ending}"), noise).read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD = {
    "truncated PNG": lambda path: damaged(path, "png"),
    "truncated JPEG": lambda path: damaged(path, "jpg"),
    "truncated GIF": lambda path: damaged(path, "gif"),
    "truncated TIFF": lambda path: damaged(path, "tiff"),
    "text": lambda path: path.write_text("not an image"),
    "empty": lambda path: path.write_bytes(b""),
    "only a signature": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
    "1x1": lambda path: save(path, GREY[:1, :1]),
    "15 pixels high": lambda path: save(path, GREY[:15]),
    "folder": lambda path: path.mkdir(),
    "broken link": lambda path: path.symlink_to("nowhere.png"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "missing": lambda path: None,
    "decompression bomb": lambda path: path.write_bytes(huge_png(100_000)),
    "floats": lambda path: save(path, GREY.astype(np.float32), format="TIFF"),
    "32 bits": lambda path: save(path, GREY.astype(np.int32) * 1000, format="TIFF"),
    "another kind": lambda path: save(path, COLOUR, format="PCX"),
}


@pytest.mark.parametrize("kind", BAD)
def test_the_unusable_is_refused_in_one_sentence(kind, tmp_path):
    path = tmp_path / "bad one.png"
    BAD[kind](path)
    with pytest.raises(DataError) as refusal:
        read_image(path)
    message = str(refusal.value)
    assert message.count(str(path)) == 1 and "\n" not in message
    assert len(message) > len(str(path)) + 10, "it gives no reason"
    assert isinstance(refusal.value, UserError)


def test_what_claims_to_be_huge_is_not_even_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(huge_png(8001))
    with pytest.raises(DataError, match="8001x8001 pixels are too many"):
        read_image(tmp_path / "a.png")


def test_no_other_program_is_started_for_a_file_that_poses_as_an_image(tmp_path):
    """Pillow hands EPS to Ghostscript, whatever the file's name."""
    with pytest.raises(DataError, match="of a kind that isn't read"):
        read_image(save(tmp_path / "a.png", COLOUR, format="EPS"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(path)


def test_16_pixels_are_enough(tmp_path):
    assert read(save(tmp_path / "a.png", GREY[:16, :16])).shape == (16, 16, 3)


# ---------------------------------------------------------------- pixels for the nets, and back


def test_all_256_values_survive_the_way_to_the_nets_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    unit = to_unit(pixels)
    assert unit.dtype == np.float32 and unit.min() == -1 and unit.max() == 1
    assert np.array_equal(to_uint8(unit), pixels)
    assert np.allclose(np.diff(unit), 2 / 255, atol=1e-6)


def test_to_uint8_rounds_and_clips():
    levels = np.array([-1.7, -1, -1 + 0.9 / 127.5, -1 + 1.1 / 127.5, 0.999, 1.3, 300], np.float32)
    assert to_uint8(levels).tolist() == [0, 0, 1, 1, 255, 255, 255]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_keeps_flat_areas_and_straight_ramps(scale):
    ramp = rgb(np.repeat(np.arange(40, 200, 8, dtype=np.uint8)[None], 20, axis=0))
    large = bicubic(ramp, scale)
    assert large.dtype == np.uint8 and large.shape == (20 * scale, 20 * scale, 3)
    at = (np.arange(20 * scale) + 0.5) / scale - 0.5
    inside = slice(3 * scale, -3 * scale)
    assert np.abs(large[:, inside] - (40 + 8 * at)[None, inside, None]).max() <= 0.5 + 1e-9
    assert (bicubic(np.full((8, 9, 3), 77, np.uint8), scale) == 77).all()
