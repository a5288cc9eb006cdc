"""Every file in a user's folder is read as RGB or refused with one sentence that names it."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.core.errors import UserError
from tinysrgan.data.images import DataError, area_average, decode, enlarge, read_image, to_uint8, to_unit

# pytest replaces the filter that tinysrgan.data.images sets; the last test checks that filter.
pytestmark = [pytest.mark.filterwarnings(f"ignore:::PIL.{module}") for module in ("Image", "TiffImagePlugin")]

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


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


# ---------------------------------------------------------------- readable files


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


def save_16_bits(path, pixels):
    if path.suffix == ".pgm":  # old Pillow versions read these files but cannot write them
        path.write_bytes(b"P5 %d %d 65535\n" % pixels.shape[::-1] + pixels.astype(">u2").tobytes())
        return path
    return save(path, pixels)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_16_bits_are_scaled_and_not_clipped(name, tmp_path):
    pixels = np.repeat(np.array([[0, 255, 257, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16), 18, axis=0)
    pixels = np.repeat(pixels, 4, axis=1)
    assert read(save_16_bits(tmp_path / name, pixels))[0, ::4, 0].tolist() == [0, 1, 1, 100, 101, 255]


def test_cmyk(tmp_path):
    inks = np.zeros((20, 30, 4), np.uint8)
    inks[:, :10, 0] = inks[:, 10:20, 1] = inks[:, 20:, 3] = 255
    image = read(save(tmp_path / "a.tiff", Image.fromarray(inks, "CMYK")))
    assert image[0, [0, 10, 20]].tolist() == [[0, 255, 255], [255, 0, 255], [0, 0, 0]]  # cyan, magenta, black
    assert read(save(tmp_path / "a.jpg", Image.fromarray(inks, "CMYK"))).shape == (20, 30, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
def test_exif_says_how_to_turn_it(name, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
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


# ---------------------------------------------------------------- refused files


def huge_png(side: int) -> bytes:
    """Return a PNG of a few bytes whose header declares side x side pixels."""

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))


def damaged(path, ending: str):
    """Write the first half of an image file."""
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
    """Pillow would start Ghostscript for EPS content, whatever the file's name."""
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


# ---------------------------------------------------------------- conversion to the nets' values and back


def test_all_256_values_survive_the_way_to_the_nets_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    unit = to_unit(pixels)
    assert unit.dtype == np.float32 and unit.min() == -1 and unit.max() == 1
    assert np.array_equal(to_uint8(unit), pixels)
    assert np.allclose(np.diff(unit), 2 / 255, atol=1e-6)


def test_to_uint8_rounds_and_clips():
    levels = np.array([-1.7, -1, -1 + 0.9 / 127.5, -1 + 1.1 / 127.5, 0.999, 1.3, 300], np.float32)
    assert to_uint8(levels).tolist() == [0, 0, 1, 1, 255, 255, 255]


def test_area_average_is_exact_where_the_sizes_divide():
    pixels = np.random.default_rng(0).integers(0, 256, (120, 80, 3), dtype=np.uint8)
    for array, shape in ((pixels, (8, 8, 3)), (pixels[:, :, 0], (8, 8))):
        small = area_average(Image.fromarray(array), 8)
        assert small.shape == shape and small.dtype == np.uint8
        exact = array.reshape(8, 15, 8, 10, -1).mean((1, 3)).reshape(shape)
        assert np.abs(small - exact).max() <= 0.5001  # the final rounding only


@pytest.mark.parametrize("width, height", [(41, 29), (37, 370), (1, 8), (8, 3)])
def test_area_average_counts_parts_of_pixels(width, height):
    """After enlarging by 8 without interpolation, the averaged areas consist of whole pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    fine = pixels.repeat(8, axis=0).repeat(8, axis=1)
    exact = fine.reshape(8, height, 8, width, 3).mean((1, 3))
    assert np.abs(area_average(Image.fromarray(pixels), 8) - exact).max() <= 0.5001
    assert (area_average(Image.new("RGB", (width, height), (255, 0, 77)), 8) == (255, 0, 77)).all()


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_keeps_flat_areas_and_straight_ramps(scale):
    ramp = rgb(np.repeat(np.arange(40, 200, 8, dtype=np.uint8)[None], 20, axis=0))
    large = enlarge(ramp, scale)
    assert large.dtype == np.uint8 and large.shape == (20 * scale, 20 * scale, 3)
    at = (np.arange(20 * scale) + 0.5) / scale - 0.5
    inside = slice(3 * scale, -3 * scale)
    assert np.abs(large[:, inside] - (40 + 8 * at)[None, inside, None]).max() <= 0.5 + 1e-9
    assert (enlarge(np.full((8, 9, 3), 77, np.uint8), scale) == 77).all()


# ---------------------------------------------------------------- unusual but valid files


def test_16_bits_in_colour_and_with_transparency(tmp_path):
    """PNG supports 16 bits per channel, but Pillow cannot write them."""
    samples = np.random.default_rng(2).integers(0, 65536, (20, 30, 4)).astype(">u2")
    alpha = samples[:, :, 3:] / 65535
    for channels, kind in ((3, 2), (4, 6), (2, 4)):
        pixels = samples[:, :, -2:] if channels == 2 else samples[:, :, :channels]
        header = struct.pack(">IIBBBBB", 30, 20, 16, kind, 0, 0, 0)
        rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
        (tmp_path / "a.png").write_bytes(png((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")))
        colour = pixels[:, :, :1] / 257 if channels == 2 else pixels[:, :, :3] / 257
        expected = colour if channels == 3 else alpha * colour + 255 * (1 - alpha)
        assert np.abs(read(tmp_path / "a.png") - expected).max() <= 2, channels


def test_a_palette_of_half_transparent_colours(tmp_path):
    colours = np.random.default_rng(3).integers(0, 256, (256, 3)).astype(np.uint8)
    image = Image.fromarray(GREY).convert("P")
    image.putpalette(colours.tobytes())
    alpha = rgb(GREY) / 255
    expected = alpha * colours[GREY] + 255 * (1 - alpha)
    assert np.abs(read(save(tmp_path / "a.png", image, transparency=bytes(range(256)))) - expected).max() <= 1


def test_black_ink_on_transparent_black_can_be_seen(tmp_path):
    """Drawing programs export this. On a black background instead of white, the code would disappear."""
    ink = GREY > 127
    pixels = np.concatenate([np.zeros_like(COLOUR), 255 * ink[:, :, None].astype(np.uint8)], 2)
    assert np.array_equal(read(save(tmp_path / "a.png", pixels)), rgb(255 * (~ink).astype(np.uint8)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_ways_that_a_camera_may_be_held(orientation, tmp_path):
    upright = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.swapaxes(0, 1),
        6: np.rot90(COLOUR, -1),
        7: COLOUR[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(COLOUR, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read(save(tmp_path / "a.png", COLOUR, exif=exif)), upright)
    with Image.open(save(tmp_path / "a.jpg", COLOUR, quality=95)) as file:
        expected = np.asarray(file).astype(int)
    turned = read(save(tmp_path / "b.jpg", COLOUR, quality=95, exif=exif))
    corners = [expected[0, 0], expected[0, -1], expected[-1, 0], expected[-1, -1]]
    assert turned.shape == upright.shape
    assert sorted(map(tuple, turned[[0, 0, -1, -1], [0, -1, 0, -1]])) == sorted(map(tuple, corners))
    assert np.array_equal(turned[0, 0], corners[(None, 0, 1, 3, 2, 0, 2, 3, 1)[orientation]])


@pytest.mark.parametrize("ending, options", [("webp", {"lossless": True}), ("png", {}), ("tiff", {})])
def test_other_animations(ending, options, tmp_path):
    more = [Image.fromarray(255 - COLOUR), Image.fromarray(COLOUR[::-1])]
    path = save(tmp_path / f"a.{ending}", COLOUR, save_all=True, append_images=more, **options)
    assert np.array_equal(read(path), COLOUR)


# ---------------------------------------------------------------- damaged files

KINDS = ("png", "jpg", "webp", "gif", "bmp", "tif")


def smooth(path):
    """Write an image file without noise, so that its last bytes hold more than a few pixels."""
    y, x = np.mgrid[:20, :30]
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.dstack([x * 8, y * 12, x + y]).astype(np.uint8)
    return save(path, pixels, **({"exif": exif} if path.suffix in (".png", ".jpg") else {}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_whole_or_refused(kind, tmp_path):
    path = smooth(tmp_path / f"a.{kind}")
    content, whole = path.read_bytes(), read(path)
    refused = 0
    for cut in sorted({*range(0, len(content), 7), *range(len(content) - 16, len(content))}):
        path.write_bytes(content[:cut])
        try:
            assert np.array_equal(read(path), whole), f"cut after {cut} of {len(content)} bytes, and nobody notices"
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
    assert refused > len(content) // 14


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_raise_nothing_but_a_data_error(kind, tmp_path):
    path = smooth(tmp_path / f"a.{kind}")
    content = np.frombuffer(path.read_bytes(), np.uint8)
    generator = np.random.default_rng(1)
    for _ in range(150):
        damaged = content.copy()
        reach = generator.choice([60, len(content)])  # half of the changes are in the header
        damaged[generator.integers(reach, size=4)] = generator.integers(256, size=4)
        path.write_bytes(damaged.tobytes())
        try:
            assert read(path).ndim == 3
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_nothing_is_printed_beside_the_one_sentence(tmp_path):
    """Pillow's warnings about these files are not shown."""
    (tmp_path / "a-large.png").write_bytes(huge_png(10_000))  # Pillow only warns
    path = smooth(tmp_path / "b-exif.jpg")
    content = bytearray(path.read_bytes())
    content[content.index(b"Exif\0\0") + 10] = 200  # the rotation's offset lies beyond the end
    path.write_bytes(content)
    path = smooth(tmp_path / "c-cut.tif")
    path.write_bytes(path.read_bytes()[:1000])
    program = (
        "import sys\nfrom pathlib import Path\nfrom tinysrgan.data.images import DataError, read_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path); print('read')\n"
        "    except DataError: print('refused')\n"
    )
    command = [sys.executable, "-W", "always", "-c", program, str(tmp_path)]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (result.stdout.split(), result.stderr) == (["refused", "read", "refused"], "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: is not a file"):
        read_image(tmp_path / "pipe.png")


# A command whose threads decode a file that libtiff complains about, while the main thread prints.
CHATTER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tinysrgan.core.cli import command, say
from tinysrgan.data.images import DataError, read_image

def refused(_):
    try: read_image(Path(sys.argv[1]))
    except DataError: return 1
    return 0

def run():
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(refused, range(60))
        for i in range(2000):
            say(str(i))
        print(sum(results))
    return 0

code = command(run)
print("after", file=sys.stderr)
sys.exit(code)
"""


def test_libraries_are_silenced_and_our_own_messages_are_not(tmp_path):
    from test_upscale import damaged_tiff

    (tmp_path / "bad.tif").write_bytes(damaged_tiff("tiff_lzw"))
    line = [sys.executable, "-W", "ignore", "-c", CHATTER, str(tmp_path / "bad.tif")]
    done = subprocess.run(line, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout == "60\n", done
    assert done.stderr.splitlines() == [*(f"tinysrgan: {i}" for i in range(2000)), "after"]
