"""The command ``python -m tinysrgan.upscale``: output files, memory and errors."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import h5py
import mistakes
import numpy as np
import pytest
from mistakes import bad_outputs, check_sentence, contents, make_bad_outputs, without_privileges
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_upscaler import repeated, repeating

from tinysrgan.core.cli import printable
from tinysrgan.data.images import ENDINGS
from tinysrgan.formats.checkpoint import save_generator
from tinysrgan.inference import upscaler as upscaler_module
from tinysrgan.models import Discriminator, Generator
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.upscale import main

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 6, 4), dtype=np.uint8)
OPTIONS = ("--weights", "generator.h5", "--device", "cpu", "--overwrite")
COLOUR, GREY = PIXELS[:, :, :3], PIXELS[:, :, 0]

# Images as small as these are upscaled before a second thread starts.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "TINYSRGAN_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("TINYSRGAN_THREADS", "1")
    with single_threaded_blas():
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "generator.h5"
    save_generator(path, repeating(), {})
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    """Change to a folder with a good image, an older result and generator.h5."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, "generator.h5")
    save("in.png", COLOUR)
    Path("out.png").write_bytes(b"an older result")
    return tmp_path


def save(path, pixels, **options) -> None:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)


def pixels_of(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def upscale(*arguments) -> int:
    return main([*map(str, arguments), *OPTIONS])


def command(*arguments, **options) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "tinysrgan.upscale", *map(str, arguments), "--device", "cpu", "--overwrite"]
    return subprocess.run(line, capture_output="stdout" not in options, env=ENVIRONMENT, **options)


# ---------------------------------------------------------------- file to file


def test_a_file(here, capsys):
    assert upscale("in.png", "out.png") == 0
    assert np.array_equal(pixels_of("out.png"), repeated(COLOUR))
    assert capsys.readouterr() == ("", "")
    assert sorted(os.listdir()) == ["generator.h5", "in.png", "out.png"]


@pytest.mark.parametrize("ending", [*sorted(ENDINGS), ".PNG", ".Jpg"])
def test_every_ending_goes_in_and_out(here, ending):
    """The file extension sets the format, and the result is valid input, as a file and in a folder."""
    assert upscale("in.png", f"result{ending}") == 0
    expected = ENDINGS[ending.lower()]
    with Image.open(f"result{ending}") as image:
        assert image.format == expected
        result = np.asarray(image.convert("RGB")).astype(int)
    error = np.abs(result - repeated(COLOUR)).mean()
    assert error == 0 or (expected in ("JPEG", "GIF", "AVIF", "HEIF") and error < 25)
    os.mkdir("photos")
    shutil.copy(f"result{ending}", "photos")
    assert upscale("photos", "larger") == 0
    assert pixels_of(f"larger/result{ending}").shape[:2] == (144, 96)


def test_what_this_pillow_reads(here):
    assert {".jpe", ".jpeg", ".tiff", ".mpo"} < ENDINGS.keys()
    assert (".avif" in ENDINGS) is (".avif" in Image.registered_extensions())


def test_heic_says_what_helps(here, capsys):
    Path("a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert upscale("a.heic", "new.png") == 2
    error = capsys.readouterr().err
    assert error.startswith("tinysrgan: a.heic") and error.count("\n") == 1
    assert (".heic" in ENDINGS) is not ("pip install pillow-heif" in error)


def test_the_shipped_generator_is_the_default(here, monkeypatch, capsys):
    monkeypatch.setattr(upscaler_module, "WEIGHTS", here)
    assert main(["in.png", "new.png"]) == 2
    assert "generator that ships with tinysrgan is not at" in capsys.readouterr().err
    Path("generator.h5").rename(upscaler_module.SHIPPED)
    assert main(["in.png", "new.png", "--device", "cpu"]) == 0
    assert pixels_of("new.png").shape == (36, 24, 3)


def test_grey_alpha_palette_16_bits(here, capsys):
    save("grey.png", GREY)
    save("alpha.png", PIXELS)
    save("deep.png", GREY.astype(np.uint16) * 257)
    save("palette.png", Image.fromarray(COLOUR).quantize(4))
    for name, mode in {"grey": "L", "alpha": "RGBA", "deep": "L", "palette": "RGB"}.items():
        assert upscale(f"{name}.png", "out.png") == 0
        with Image.open("out.png") as image:
            assert (image.mode, image.size) == (mode, (24, 36))
    assert np.array_equal(pixels_of("out.png"), repeated(np.asarray(Image.open("palette.png").convert("RGB"))))
    assert capsys.readouterr().err == "tinysrgan: deep.png has 16 bits a channel: the result has 8.\n"


def test_16_bits_of_colour_are_told_too(here, capsys):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 257)
    Path("deep.png").write_bytes(png(6, 9, rows, depth=16, colour=2))
    assert upscale("deep.png", "out.png") == 0
    assert "16 bits" in capsys.readouterr().err
    assert np.array_equal(pixels_of("out.png"), repeated(COLOUR))


def test_animations_say_what_happens(here, capsys):
    frames = [Image.new("L", (20, 10), level) for level in (10, 100, 200)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    assert upscale("a.gif", "out.png") == 0
    assert capsys.readouterr().err == "tinysrgan: a.gif holds 3 images, as animations do: only the first is upscaled.\n"
    assert (pixels_of("out.png") == 10).all()


def test_gif_says_what_it_loses(here, capsys):
    assert upscale("in.png", "out.gif") == 0
    assert "256 colours" in capsys.readouterr().err


def test_exif_turns_it(here):
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    save("in.png", COLOUR, exif=exif)
    assert upscale("in.png", "out.png") == 0
    with Image.open("out.png") as image:
        assert not image.getexif()
        assert np.array_equal(np.asarray(image), repeated(COLOUR[::-1, ::-1]))


# ---------------------------------------------------------------- metadata


def profile(space: bytes) -> bytes:
    """Return a profile header with this colour space; neither tinysrgan nor Pillow reads more of a profile."""
    return bytes(16) + space + bytes(16) + b"acsp" + bytes(200)


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F], exif[0x8298] = "ACME", "(c) nobody"
    exif[0x8769] = {0x9003: "2020:01:02 03:04:05", 0xA002: 6, 0xA003: 9, 0x829A: 0.01}
    exif[0x8825] = {1: "N", 2: (48.0, 1.0, 2.5)}
    return exif.tobytes()


XMP = '<x tiff:Orientation="6" dc:title="a title"><tiff:Orientation>6</tiff:Orientation></x>'


@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.tif", "b.webp"])
def test_profile_resolution_and_exif_are_kept(here, source, target, capsys):
    save(source, COLOUR, icc_profile=profile(b"RGB "), dpi=(300, 150), exif=exif_of(6))
    assert upscale(source, target) == 0
    assert capsys.readouterr().err == ""
    with Image.open(target) as image:
        assert image.size == (36, 24)  # rotated
        assert image.info["icc_profile"] == profile(b"RGB ")
        exif = image.getexif()
        assert (exif[0x010F], exif[0x8298]) == ("ACME", "(c) nobody") and 0x0112 not in exif
        assert exif.get_ifd(0x8769) == {0x9003: "2020:01:02 03:04:05", 0x829A: 0.01}  # without the old size
        assert exif.get_ifd(0x8825)[2] == (48.0, 1.0, 2.5)
        dpi = image.info.get("dpi") or (exif.get(0x011A), exif.get(0x011B))
    assert source == "a.webp" or [round(value) for value in dpi] == [150, 300]


def test_resolution_goes_through_every_format_that_has_one(here):
    save("in.png", COLOUR, dpi=(300, 150))
    for before, after in (("in.png", "a.webp"), ("a.webp", "b.bmp"), ("b.bmp", "c.tif"), ("c.tif", "d.jpg")):
        assert upscale(before, after) == 0
    with Image.open("d.jpg") as image:
        assert image.info["dpi"] == (300, 150)
    save("none.tif", COLOUR)
    assert upscale("none.tif", "none.png") == 0
    with Image.open("none.png") as image:
        assert "dpi" not in image.info


def test_xmp_texts_and_comments(here):
    info = PngInfo()
    info.add_text("Title", "a code")
    info.add_text("Description", "naïve 世")
    info.add_text("Comment", "a comment")
    info.add_itxt("XML:com.adobe.xmp", XMP)
    save("in.png", COLOUR, pnginfo=info)
    for target in ("a.png", "a.webp", "a.tif"):
        assert upscale("in.png", target) == 0
    with Image.open("a.png") as image:
        texts = image.text
    assert (texts["Title"], texts["Description"], texts["Comment"]) == ("a code", "naïve 世", "a comment")
    with Image.open("a.webp") as webp, Image.open("a.tif") as tiff:
        for xmp in (texts["XML:com.adobe.xmp"].encode(), webp.info["xmp"], tiff.getexif()[700]):
            assert b"a title" in xmp and b"Orientation" not in xmp
    for target in ("a.jpg", "a.gif", "a.jp2"):
        assert upscale("a.png", target) == 0
        with Image.open(target) as image:
            image.load()
            assert image.info["comment"] == b"a comment"


@pytest.mark.parametrize(
    ("mode", "space", "kept"),
    [
        ("L", b"GRAY", True),
        ("L", b"RGB ", False),
        ("RGB", b"RGB ", True),
        ("RGB", b"GRAY", False),
        ("CMYK", b"CMYK", False),
        ("LAB", b"Lab ", False),
    ],
)
def test_a_profile_is_kept_where_it_fits_the_result(here, mode, space, kept, capsys):
    image = Image.fromarray(COLOUR).convert(mode) if mode != "LAB" else Image.fromarray(COLOUR)
    save("in.tif", image, icc_profile=profile(space))
    assert upscale("in.tif", "out.png") == 0
    with Image.open("out.png") as result:
        assert ("icc_profile" in result.info) == kept
    said = capsys.readouterr().err
    name = space.decode().strip()
    assert said == (
        "" if kept else f"tinysrgan: out.png doesn't have the input's colour profile, which is for {name} pixels.\n"
    )


def test_what_a_format_does_not_hold_is_said(here, capsys):
    save("in.png", COLOUR, icc_profile=profile(b"RGB "), dpi=(300, 300), exif=exif_of(1))
    assert upscale("in.png", "out.ppm") == 0
    assert capsys.readouterr().err == "tinysrgan: out.ppm doesn't have the input's colour profile, resolution, EXIF.\n"
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f"<x>{'long' * 20_000}</x>")
    exif = Image.Exif()
    exif[0x010F] = "A" * 70_000
    save("in.png", COLOUR, pnginfo=info, exif=exif)
    assert upscale("in.png", "out.jpg") == 0
    assert capsys.readouterr().err == (
        "tinysrgan: out.jpg doesn't have the input's EXIF, which is too long, XMP, which is too long.\n"
    )


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp"])
def test_damaged_exif_is_left_out_and_that_is_said(here, source, capsys):
    exif = bytearray(exif_of(1))
    exif[181], exif[195] = 129, 10  # types that do not fit these GPS entries
    save(source, COLOUR, exif=bytes(exif))
    assert upscale(source, "out.png") == 0
    assert capsys.readouterr().err == f"tinysrgan: {source} has damaged EXIF: it is left out.\n"
    with Image.open("out.png") as image:
        assert image.size == (24, 36) and not image.getexif()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (17, 2)])
def test_any_size(here, size):
    save("small.png", Image.new("RGB", size, (1, 2, 3)))
    assert upscale("small.png", "out.png") == 0
    assert (pixels_of("out.png") == (1, 2, 3)).all() and pixels_of("out.png").shape == (4 * size[1], 4 * size[0], 3)


def test_odd_names(here):
    for name in ("mit Leerzeichen.png", "画像 é.png", "-dash.png", "line\nbreak.png", os.fsdecode(b"\xff.png")):
        if os.name == "nt" and ("\n" in name or "\udcff" in name):
            continue
        save("in.png", COLOUR)
        os.replace("in.png", name)
        assert upscale(f"./{name}", f"./out {name}") == 0
        assert np.array_equal(pixels_of(f"./out {name}"), repeated(COLOUR))


def test_links_are_followed(here):
    if os.name == "nt":
        pytest.skip("links need rights on Windows")
    os.mkdir("elsewhere")
    Path("out.png").rename("elsewhere/out.png")
    os.symlink("elsewhere/out.png", "out.png")
    os.symlink("in.png", "link.png")
    assert upscale("link.png", "out.png") == 0
    assert os.path.islink("out.png") and pixels_of("elsewhere/out.png").shape == (36, 24, 3)


# ---------------------------------------------------------------- standard input and output


def test_streams(here):
    done = command("-", "-", "--weights", "generator.h5", input=Path("in.png").read_bytes())
    assert done.returncode == 0 and not done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.format == "PNG" and np.array_equal(np.asarray(image), repeated(COLOUR))


def test_one_stream(here, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("in.png").read_bytes())))
    assert upscale("-", "out.png") == 0
    assert np.array_equal(pixels_of("out.png"), repeated(COLOUR))
    assert upscale("in.png", "-") == 0
    assert capfdbinary.readouterr().out == Path("out.png").read_bytes()


def test_standard_input_without_an_end(here, monkeypatch, capsys):
    monkeypatch.setattr("tinysrgan.inference.image_files.LARGEST_FILE", 1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(1001))))
    assert upscale("-", "out.png") == 2
    assert capsys.readouterr().err == "tinysrgan: standard input: there is no end to it after 1,000 bytes.\n"


# ---------------------------------------------------------------- QR codes


def code(text: str) -> Image.Image:
    qrcode = pytest.importorskip("qrcode")
    pytest.importorskip("zxingcpp")
    made = qrcode.QRCode(box_size=4)
    made.add_data(text)
    return made.make_image().get_image().convert("L")


def test_scan(here, capsys):
    save("in.png", code("hello 世界"))
    assert upscale("in.png", "out.png", "--scan") == 0
    assert capsys.readouterr().out == "before: hello 世界; after: hello 世界\n"
    os.mkdir("codes")
    save("codes/a.png", code("A"))
    save("codes/b.png", COLOUR)
    assert upscale("codes", "larger", "--scan") == 0
    a, b = (os.path.join("codes", name) for name in ("a.png", "b.png"))
    assert capsys.readouterr().out == f"{a}: before: A; after: A\n{b}: before: nothing; after: nothing\n"


def test_scan_of_a_transparent_code(here, capsys):
    """The code is black on a transparent background; the reader sees it on white."""
    black = Image.new("L", code("A").size, 0)
    black.putalpha(code("A").point(lambda level: 255 - level))
    save("in.png", black)
    assert upscale("in.png", "out.png", "--scan") == 0
    assert capsys.readouterr().out == "before: A; after: A\n"


def test_scan_leaves_standard_output_to_the_image(here):
    save("in.png", code("A"))
    done = command("in.png", "-", "--scan", "--weights", "generator.h5")
    assert done.stderr.decode().splitlines() == ["before: A; after: A"]
    assert Image.open(io.BytesIO(done.stdout)).mode == "L"


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_scan_for_a_reader_who_leaves(here):
    """The reader of stdout exits early, as in ``| head -1``. Assert one sentence, and that all images are written."""
    os.mkdir("codes")
    for name in "abc":
        save(f"codes/{name}.png", code("A"))
    read, write = os.pipe()
    os.close(read)
    line = ("codes", "larger", "--scan", "--weights", "generator.h5")
    done = command(*line, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1 and len(os.listdir("larger")) == 3
    said, summary = done.stderr.splitlines()
    assert said == "tinysrgan: standard output can't be written: Broken pipe."
    assert summary.startswith("tinysrgan: 3 of 3 files are upscaled")


# ---------------------------------------------------------------- warnings


@pytest.fixture
def spoiling(here):
    """Save weights that turn all images white."""
    net = repeating()
    net["tail"].b.value += 3
    save_generator(Path("generator.h5"), net, {})
    return here


@pytest.mark.parametrize("options, exit_code", [((), 0), (("--scan",), 1)])
def test_a_code_that_is_lost(spoiling, capsys, options, exit_code):
    """The result is written anyway. Only with --scan does the exit code report the lost code."""
    save("in.png", code("hello 世界"))
    assert upscale("in.png", "out.png", *options) == exit_code
    first, second = capsys.readouterr().err.splitlines()
    assert first == "tinysrgan: in.png: scanned before, not after: hello 世界. Read the input instead."
    assert second.startswith("tinysrgan: in.png: the result is unlike the input")
    assert (pixels_of("out.png") == 255).all()


@pytest.mark.parametrize("options, exit_code", [((), 0), (("--scan",), 1)])
def test_lost_codes_of_a_folder(spoiling, capsys, options, exit_code):
    os.mkdir("codes")
    for name in "ab":
        save(f"codes/{name}.png", code(name))
    save("codes/c.png", COLOUR)
    assert upscale("codes", "larger", *options) == exit_code
    *lines, last = capsys.readouterr().err.splitlines()
    assert last.endswith("they are in larger. Warnings: 2 scanned before, not after, 3 unlike the input.")
    assert [sum(words in line for line in lines) for words in ("scanned before", "unlike")] == [2, 3]
    assert all(any(os.path.join("codes", f"{name}.png") in line for line in lines) for name in "abc")


def test_one_of_two_codes_is_lost(spoiling, capsys, monkeypatch):
    readings = [["A", "B", "B"], ["B", "A"]]
    monkeypatch.setattr("tinysrgan.upscale.codes", lambda image: readings[image.width > 6])
    assert upscale("in.png", "out.png") == 0
    assert capsys.readouterr().err == "tinysrgan: in.png: scanned before, not after: B. Read the input instead.\n"


def test_a_result_that_scans_is_right_however_unlike(spoiling, capsys, monkeypatch):
    monkeypatch.setattr("tinysrgan.upscale.codes", lambda image: ["A"] * (image.width > 6))
    assert upscale("in.png", "out.png") == 0
    assert capsys.readouterr().err == ""


def test_without_a_reader_images_are_still_compared(spoiling, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    assert upscale("in.png", "out.png") == 0
    assert capsys.readouterr().err.startswith("tinysrgan: in.png: the result is unlike the input: shrunk back, it is")


def test_the_shipped_weights_on_a_photograph(here, capsys):
    data = pytest.importorskip("skimage.data")
    photo = Image.fromarray(data.astronaut())
    photo.thumbnail((64, 64), Image.Resampling.BOX)
    save("in.png", photo)
    assert main(["in.png", "new.png", "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("tinysrgan: in.png: the result is unlike the input") and said.count("\n") == 1
    assert "for QR codes" in said


def test_printable():
    assert printable("a b é 世 😀") == "a b é 世 😀"
    assert printable("\n\t\x1b\x00\x7f\u202e") == "\\n\\t\\x1b\\x00\\x7f\\u202e"


# ---------------------------------------------------------------- folder to folder


@pytest.fixture
def folder(here):
    os.makedirs("photos/deep/.hidden")
    for name in ("a.png", "b.bmp", "deep/a.png", "deep/.hidden/x.png"):
        save(f"photos/{name}", COLOUR)
    Path("photos/notes.txt").write_text("not an image by its name")
    return here


def test_a_folder(folder, capsys):
    before = contents(folder / "photos")
    assert upscale("photos", "larger") == 0
    assert contents(folder / "photos") == before
    names = "a.png", "b.bmp", "deep", "deep/a.png"
    assert sorted(contents(folder / "larger")) == sorted(map(os.path.normpath, names))
    for name in ("a.png", "b.bmp", "deep/a.png"):
        assert np.array_equal(pixels_of(f"larger/{name}"), repeated(COLOUR))
    error = capsys.readouterr().err
    assert "3 of 3 files are upscaled, on the CPU" in error
    assert error.count("Left out in photos: 1 .txt.") == 1


def test_a_folder_goes_on_past_bad_files(folder, capsys):
    Path("photos/aa.png").write_text("not an image")
    Path("photos/deep/cut.png").write_bytes(Path("photos/a.png").read_bytes()[:60])
    if os.name != "nt":
        os.mkfifo("photos/pipe.png")
        os.symlink("nowhere", "photos/dead.png")
    assert upscale("photos", "larger") == 1
    assert len(contents(folder / "larger")) == 4
    lines = capsys.readouterr().err.splitlines()
    named = {"aa.png", "cut.png"} | ({"pipe.png", "dead.png"} if os.name != "nt" else set())
    assert {name for name in named for line in lines[:-1] if name in line} == named and len(lines) == len(named) + 2
    assert f"3 of {3 + len(named)} files" in lines[-1]


def test_a_folder_of_which_nothing_is_upscaled(folder, capsys):
    for path in map(Path, ("photos/a.png", "photos/b.bmp", "photos/deep/a.png")):
        path.write_text("not an image")
    assert upscale("photos", "larger") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tinysrgan: 0 of 3 files are upscaled") and "larger" not in last


@pytest.mark.skipif(os.name == "nt", reason="a shell's redirections, line breaks in names")
def test_a_folder_with_standard_error_closed(folder):
    os.rename("photos/b.bmp", "photos/b\n.bmp")
    line = f"{sys.executable} -m tinysrgan.upscale photos larger --weights generator.h5 --scan 2>&-"
    done = subprocess.run(line, shell=True, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert (done.returncode, len(contents(folder / "larger"))) == (0, 4)
    names = [line.split(": ")[0] for line in done.stdout.splitlines()]
    assert names == ["photos/a.png", "photos/b\\n.bmp", "photos/deep/a.png"]


def test_results_inside_of_the_folder_are_not_upscaled_again(folder):
    for _ in range(2):
        assert upscale("photos", "photos/larger") == 0
        assert len(contents(folder / "photos" / "larger")) == 4
    assert upscale("photos/deep", ".") == 0  # the reverse: IN is inside OUT
    assert pixels_of("a.png").shape == (36, 24, 3)


def test_an_input_is_never_overwritten_by_another_ones_result(folder, capsys):
    """The result for photos/photos/a.png would overwrite photos/a.png, which is an input."""
    os.mkdir("photos/photos")
    save("photos/photos/a.png", GREY)
    before = contents(folder / "photos")
    assert upscale("photos", ".") == 1
    assert contents(folder / "photos") == before
    assert "is an input too" in capsys.readouterr().err


# ---------------------------------------------------------------- memory, progress, Ctrl-C


MEASURE = """
import sys
from tinysrgan.upscale import main
code = main(sys.argv[1:])
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(code, int(peak.split()[1]) * 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of memory is read the Linux way")
def test_a_large_image_stays_within_a_gigabyte(here):
    save_generator(Path("generator.h5"), Generator(1, 2, seed=0), {})
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    save("in.bmp", noise)
    line = [sys.executable, "-c", MEASURE, "in.bmp", "out.bmp", "--weights", "generator.h5", "--device", "cpu"]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT)
    code, peak = map(int, done.stdout.split())
    assert code == 0, done.stderr
    with Image.open("out.bmp") as image:
        assert image.size == (8000, 8000)
    assert 400e6 < peak < 1e9  # the result alone takes 256 MB


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("source, total, unit", [("in.png", "/54.0 [", "pixel/s"), ("photos", "/3 [", "file/s")])
def test_a_progress_bar_for_those_who_look(folder, source, total, unit, monkeypatch):
    """The bar appears on a terminal only, and only if the work takes a while."""
    for delay, look, shown in ((0, Terminal(), True), (0, io.StringIO(), False), (1000, Terminal(), False)):
        monkeypatch.setattr("tinysrgan.core.cli.BAR_DELAY", delay)
        monkeypatch.setattr(sys, "stderr", look)
        assert upscale(source, "new.png" if source == "in.png" else "larger") == 0
        assert all((words in look.getvalue()) == shown for words in (total, unit))


@pytest.mark.skipif(os.name == "nt", reason="Windows can't send Ctrl-C to one process")
def test_ctrl_c(here):
    os.mkdir("many")
    for i in range(200):
        save(f"many/{i:03}.png", Image.new("RGB", (300, 300)))
    line = [sys.executable, "-m", "tinysrgan.upscale", "many", "larger", "--weights", "generator.h5"]
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 (background jobs ignore it)
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=heed)
    while not (Path("larger").is_dir() and len(os.listdir("larger")) > 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said == "tinysrgan: stopped. What was written so far is whole.\n"
    for name in os.listdir("larger"):
        assert pixels_of(f"larger/{name}").shape == (1200, 1200, 3)


def test_help_is_read_in_a_minute(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    assert len(text.split()) < 250 and len(text.splitlines()) < 45
    assert all(word in text for word in ("IN", "OUT", "--weights", "--device", "--scan", "Exit code"))


# ---------------------------------------------------------------- user errors


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    """Return a PNG whose header declares this size, with these rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def refuse(*arguments, words: str, capsys) -> None:
    out, err = mistakes.refuse(main, arguments, words, capsys)
    assert not out and ".." not in err.replace("/..", ""), err


def truncated(kind: str):
    def make() -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        save("bad", noise, format=kind)
        Path("bad").write_bytes(Path("bad").read_bytes()[:2000])

    return make


def holding(content: bytes):
    return lambda: Path("bad").write_bytes(content)


def wrong_checksum() -> None:
    content = bytearray(Path("in.png").read_bytes())
    content[-20] ^= 1
    Path("bad").write_bytes(content)


def eps() -> None:
    save("bad", COLOUR, format="EPS")


def hdf5() -> None:
    shutil.copy("generator.h5", "bad")


BAD_IMAGES = {
    "absent": (lambda: None, "There is no bad."),
    "empty": (holding(b""), "bad is not an image"),
    "text": (holding(b"hello"), "bad is not an image"),
    "zeros": (holding(bytes(5000)), "bad"),
    "svg": (holding(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "bad is not an image"),
    "pdf": (holding(b"%PDF-1.7\n"), "bad is not an image"),
    "eps": (eps, "bad is not an image"),
    "hdf5": (hdf5, "bad is not an image"),
    "header only": (holding(b"\x89PNG\r\n\x1a\n"), "bad"),
    "wrong checksum": (wrong_checksum, "bad can't be read as an image"),
    "no rows": (holding(png(30, 30)), "bad can't be read as an image"),
    "no width": (holding(png(0, 30)), "bad"),
    "vast": (holding(png(60_000, 60_000)), "bad"),
    "large": (holding(png(8000, 8001)), "8000x8001 pixels are too many, the limit is 64,000,000"),
    "a bomb": (holding(png(30, 30, bytes(10**7))), "bad"),
    "float": (lambda: save("bad", np.zeros((5, 5), np.float32), format="TIFF"), "bad: Pixels that are floating"),
    "32 bits": (lambda: save("bad", np.full((5, 5), 70000, np.int32), format="TIFF"), "bad: Pixels of more than 16"),
    **{
        f"truncated {kind}": (truncated(kind), "bad can't be read as an image")
        for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
    },
    "truncated WEBP": (truncated("WEBP"), "bad"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(here, name, capsys):
    make, words = BAD_IMAGES[name]
    make()
    if name == "a bomb":  # Pillow ignores the surplus rows, so the image is valid
        assert main(["bad", "out.png", *OPTIONS]) == 0 and pixels_of("out.png").shape == (120, 120)
        return
    refuse("bad", "out.png", *OPTIONS, words=words, capsys=capsys)


@pytest.mark.skipif(os.name == "nt", reason="named pipes, links, devices")
@pytest.mark.parametrize("what", ["pipe", "device", "dead link", "circle", "endless name"])
def test_inputs_that_are_no_files(here, what, capsys):
    os.mkfifo("pipe")
    os.symlink("nowhere", "dead")
    os.symlink("circle", "circle")
    source, words = {
        "pipe": ("pipe", "pipe is not a file; - reads a pipe."),
        "device": ("/dev/zero", "/dev/zero is not a file"),
        "dead link": ("dead", "There is no dead."),
        "circle": ("circle", "There is no circle."),
        "endless name": ("x" * 300, "xxx"),
    }[what]
    refuse(source, "out.png", *OPTIONS, words=words, capsys=capsys)


OUTPUTS = bad_outputs("in.png") | {
    "the weights": ("generator.h5", "generator.h5 is an input too"),
    "no ending": ("result", "result doesn't end in a format that can be written: .apng, ."),
    "hidden": (".png", "doesn't end in a format"),
    "a text": ("result.txt", "doesn't end in a format"),
    "a document": ("result.pdf", "doesn't end in a format"),
    "another image format": ("result.ico", "doesn't end in a format"),
}


@pytest.mark.skipif(os.name == "nt", reason="named pipes, links")
@pytest.mark.parametrize("name", OUTPUTS)
def test_bad_outputs(here, name, capsys):
    make_bad_outputs("in.png")
    target, words = OUTPUTS[name]
    refuse("in.png", target, *OPTIONS, words=words, capsys=capsys)


def test_a_folder_as_the_output_has_an_example(here, capsys):
    os.mkdir("folder")
    refuse("in.png", "folder", *OPTIONS, words="give a file name, for example folder/clear.png", capsys=capsys)


def test_a_file_that_exists_is_replaced_only_on_request(here, capsys):
    """``upscale *.png`` in a folder of two images names the second one as OUT."""
    line = ("in.png", "out.png", *OPTIONS[:-1])
    words = "out.png exists: name a new file or add --overwrite; for several pictures give a folder."
    refuse(*line, words=words, capsys=capsys)
    refuse("in.png", "in.png", *OPTIONS[:-1], words="in.png is an input too", capsys=capsys)
    refuse(*line, "more.png", words="unrecognized arguments: more.png; for several pictures give", capsys=capsys)
    assert main([*line, "--overwrite"]) == 0
    assert np.array_equal(pixels_of("out.png"), repeated(COLOUR))


def test_what_a_format_cannot_hold(here, capsys):
    save("alpha.png", PIXELS)
    for ending in ("jpg", "bmp", "ppm"):
        refuse("alpha.png", f"out.{ending}", *OPTIONS, words="alpha.png has transparent parts, which", capsys=capsys)
    save("wide.png", np.zeros((1, 16_500), np.uint8))
    for ending in ("jpg", "webp", "gif"):
        refuse("wide.png", f"out.{ending}", *OPTIONS, words="would have 66000x4 pixels, too many for", capsys=capsys)


def test_bad_folders(here, capsys):
    os.makedirs("photos/none/deeper")
    save("photos/a.png", COLOUR)
    Path("photos/none/notes.txt").write_text("hello")
    before = set(os.listdir())
    refuse("photos", "out.png", *OPTIONS, words="out.png is a file and IN a folder", capsys=capsys)
    os.symlink("nowhere", "dead")
    refuse("photos", "dead", *OPTIONS, words="dead is a link to nothing and IN a folder", capsys=capsys)
    os.remove("dead")
    refuse("photos", "-", *OPTIONS, words="A folder can't go to standard output", capsys=capsys)
    refuse("photos", "photos", *OPTIONS, words="photos is IN itself", capsys=capsys)
    refuse("photos", "photos/none/..", *OPTIONS, words="is IN itself", capsys=capsys)
    refuse("photos/none", "larger", *OPTIONS, words="photos/none holds no images", capsys=capsys)
    refuse("photos", "in.png/larger", *OPTIONS, words="in.png", capsys=capsys)
    assert set(os.listdir()) == before
    (Path("photos/larger")).mkdir()
    os.rename("photos/a.png", "photos/larger/a.png")
    refuse("photos", "photos/larger", *OPTIONS, words="holds no images but those in", capsys=capsys)


def test_standard_output_that_is_an_input(here):
    """The shell opens the input for appending, as in ``>> in.png``."""
    before = contents()
    with open("in.png", "ab") as output:
        done = command("in.png", "-", "--weights", "generator.h5", stdout=output, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "standard output goes to an input" in done.stderr
    assert contents() == before


def test_a_file_called_dash_dash(here, capsys):
    refuse(*OPTIONS, "--", "in.png", "--", words="-- doesn't end in a format that can be written", capsys=capsys)
    refuse(*OPTIONS, "--", "--", "out.png", words="There is no --.", capsys=capsys)
    os.mkdir("--")
    save("--/a.png", COLOUR)
    assert main([*OPTIONS, "--", "--", "larger"]) == 0
    assert np.array_equal(pixels_of("larger/a.png"), repeated(COLOUR))


def test_names_that_begin_with_a_dash_or_a_tilde(here, monkeypatch):
    os.mkdir("home")
    monkeypatch.setenv("HOME", str(here / "home"))
    monkeypatch.setenv("USERPROFILE", str(here / "home"))
    os.rename("in.png", "-dash.png")
    os.rename("generator.h5", "home/generator.h5")
    assert main(["-dash.png", "~/a.png", "--weights=~/generator.h5", "--device", "cpu"]) == 0
    assert main(["--weights", "~/generator.h5", "--device", "cpu", "--", "-dash.png", "-new.png"]) == 0
    assert np.array_equal(pixels_of("home/a.png"), repeated(COLOUR))
    assert np.array_equal(pixels_of("-new.png"), repeated(COLOUR))


def test_bad_options(here, capsys):
    for line, words in {
        (): "required: IN, OUT",
        ("in.png",): "required: OUT",
        ("in.png", "out.png", "more.png"): "unrecognized arguments: more.png",
        ("in.png", "out.png", "--colour"): "unrecognized arguments: --colour",
        ("in.png", "out.png", "--device", "tpu"): "invalid choice: 'tpu'",
        ("in.png", "out.png", "--weights"): "expected one argument",
    }.items():
        refuse(*line, words=words, capsys=capsys)


def damaged_tiff(compression: str) -> bytes:
    """Return a TIFF with damaged data, about which libtiff prints messages."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = io.BytesIO()
    image.save(content, "TIFF", compression=compression)
    damaged = bytearray(content.getvalue())
    damaged[8:40] = bytes(32)
    return bytes(damaged)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_libraries_say_nothing_beside_the_one_sentence(here, compression):
    Path("bad.tif").write_bytes(damaged_tiff(compression))
    with subprocess.Popen([sys.executable, "-c", DECODE], stderr=subprocess.PIPE) as bare:
        noise = bare.communicate()[1]
    assert noise, "or else this test has nothing to look for"
    os.mkdir("photos")
    for name in ("a", "b", "c"):
        shutil.copy("bad.tif", f"photos/{name}.tif")
    done = command("photos", "larger", "--weights", "generator.h5", text=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and all(line.startswith("tinysrgan: ") for line in lines), done.stderr


DECODE = """
import warnings
from PIL import Image
warnings.simplefilter("ignore")
try: Image.open("bad.tif").load()
except Exception: pass
"""


def test_devices_and_packages_that_are_not_there(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    line = ("in.png", "new.png", "--weights", "generator.h5")
    refuse(*line, "--device", "cuda", words="--device cuda doesn't work here: CuPy is not installed", capsys=capsys)
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    refuse(*line, "--scan", words="pip install zxing-cpp", capsys=capsys)


def test_too_little_memory(here, monkeypatch, capsys):
    def no_memory(*arguments):
        raise MemoryError

    monkeypatch.setattr("tinysrgan.inference.image_files.eight_bits", no_memory)
    refuse("in.png", "out.png", *OPTIONS, words="in.png can't be read as an image: MemoryError", capsys=capsys)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tinysrgan.inference.upscaler.upscale_in_tiles", no_memory)
    refuse("in.png", "out.png", *OPTIONS, words="in.png needs more memory than there is", capsys=capsys)


# ---------------------------------------------------------------- weights


def no_weights(path):
    path.unlink()


def folder_of_weights(path):
    path.unlink()
    path.mkdir()


def as_bytes(content: bytes):
    return lambda path: path.write_bytes(content)


def cut(length: int):
    return lambda path: path.write_bytes(path.read_bytes()[:length])


def edited(edit):
    def apply(path):
        with h5py.File(path, "a") as file:
            edit(file)

    return apply


def with_config(**changes):
    def edit(file):
        config = json.loads(file["generator"].attrs["config"])
        file["generator"].attrs["config"] = json.dumps(config | changes)

    return edited(edit)


def with_bias(*arguments, **options):
    def edit(file):
        del file["generator/tail/b"]
        file.create_dataset("generator/tail/b", *arguments, **options)

    return edited(edit)


def external(file):
    del file["generator"]
    file["generator"] = h5py.ExternalLink("/dev/zero", "x")


def circle(file):
    del file["generator/tail/b"]
    file["generator/tail/b"] = file["/"]


def discriminator(path):
    from tinysrgan.formats.checkpoint import save as save_nets

    save_nets(path, {"discriminator": Discriminator(16, 2, 8)}, {}, {})


def overflowing(path):
    net = repeating()
    net["head"]["conv"].w.value *= 1e38
    net["tail"].w.value *= 1e38
    save_generator(path, net, {})


BAD_WEIGHTS = {
    "absent": (no_weights, "There is no file generator.h5"),
    "folder": (folder_of_weights, "generator.h5 is a folder"),
    "empty": (as_bytes(b""), "not an HDF5 file"),
    "text": (as_bytes(b"hello"), "not an HDF5 file"),
    "png": (as_bytes(png(3, 3, bytes(12))), "not an HDF5 file"),
    "signature only": (cut(8), "generator.h5"),
    "cut short": (cut(3000), "damaged or cut short"),
    "last byte missing": (lambda path: cut(path.stat().st_size - 1)(path), "damaged or cut short"),
    "another program's": (edited(lambda file: file.attrs.update(format="x")), "not one that tinysrgan wrote"),
    "of the future": (edited(lambda file: file.attrs.update(version=9)), "Update tinysrgan"),
    "no generator": (discriminator, "holds no generator"),
    "a tensor missing": (edited(lambda file: file.pop("generator/tail/b")), "generator.tail.b is missing"),
    "a tensor too many": (edited(lambda file: file.update({"generator/x": [1.0]})), "generator.x is unexpected"),
    "a wrong shape": (with_bias(data=np.zeros(4, np.float32)), "generator.tail.b has shape (4,), not (3,)"),
    "a wrong type": (with_bias(data=np.zeros(3)), "holds float64"),
    "not a number": (with_bias(data=np.full(3, np.nan, np.float32)), "not all numbers are finite"),
    "vast": (with_bias((2**50,), np.float32), "generator.tail.b"),
    "compressed": (with_bias(data=np.zeros(3, np.float32), compression="gzip"), "not stored as one plain block"),
    "another file's": (edited(external), "generator.h5"),
    "a circle": (edited(circle), "generator.tail.b"),
    "a vast net": (with_config(blocks=10**9), "blocks is 1000000000, but must be 1 to 64"),
    "code": (with_config(upscale="__import__('os')"), "must be shuffle or nearest"),
    "not json": (edited(lambda file: file["generator"].attrs.update(config="{")), "damaged"),
    "overflowing": (overflowing, "overflow on this image"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights(here, name, capsys):
    make, words = BAD_WEIGHTS[name]
    make(here / "generator.h5")
    refuse("in.png", "out.png", *OPTIONS, words=words, capsys=capsys)


# ---------------------------------------------------------------- errors of the operating system


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_no_permission(weights, capsys, monkeypatch):
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    monkeypatch.chdir(place)
    shutil.copy(weights, "generator.h5")
    Path("generator.h5").chmod(0o644)
    for name in ("secret.png", "in.png"):
        save(name, COLOUR)
    os.mkdir("closed")
    for name in ("closed/out.png", "kept.png"):
        save(name, GREY)
    before = contents()
    Path("kept.png").chmod(0o444)
    Path("secret.png").chmod(0)
    Path("closed").chmod(0o555)
    with without_privileges(monkeypatch):
        for line, words in {
            ("secret.png", "out.png"): "secret.png can't be read as an image: Permission denied.",
            ("in.png", "closed/out.png"): "closed",
            ("in.png", "closed/new.png"): "Permission denied.",
            ("in.png", "kept.png"): "kept.png is write-protected: name another file.",
        }.items():
            assert main([*line, *OPTIONS]) == 2
            check_sentence(capsys.readouterr().err, words)
    assert contents() == before
    shutil.rmtree(place)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
def test_a_disk_that_fills_up(here):
    resource = pytest.importorskip("resource")
    save("in.png", np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    before = contents()
    done = command(
        "in.png",
        "out.png",
        "--weights",
        "generator.h5",
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert (done.returncode, done.stderr) == (
        2,
        "tinysrgan: out.png can't be written: File too large. What was there before is intact.\n",
    )
    assert contents() == before


@pytest.mark.skipif(os.name == "nt", reason="a shell's redirections")
def test_standard_streams_that_are_closed_or_the_result_itself(here):
    before = contents()
    for line, words in {
        "- new.png <&-": "IN is -, but standard input is closed.",
        "in.png - >&-": "OUT is -, but standard output is closed.",
        "- in.png <in.png": "in.png is an input too",
    }.items():
        shell = f"{sys.executable} -m tinysrgan.upscale --weights generator.h5 {line}"
        done = subprocess.run(shell, shell=True, capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert contents() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_standard_output_that_fills_up_or_is_closed(here):
    with open("/dev/full", "wb") as full:
        done = command("in.png", "-", "--weights", "generator.h5", stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "tinysrgan: standard output can't be written: No space left on device.\n"
    read, write = os.pipe()
    os.close(read)
    done = command("in.png", "-", "--weights", "generator.h5", stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (2, "tinysrgan: standard output can't be written: Broken pipe.\n")


def test_no_traceback_from_a_real_shell(here):
    """Check the same errors in a separate process."""
    Path("bad").write_text("hello")
    overflowing(here / "overflowing.h5")
    good, bad = "generator.h5", "overflowing.h5"
    for source, target, net in (("bad", "out.png", good), ("in.png", "in.png", good), ("in.png", "out.png", bad)):
        done = command(source, target, "--weights", net, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
