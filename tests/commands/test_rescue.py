"""``rescue``, from Python and as a command: inputs, output and errors."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from photographs import corners, photograph
from PIL import Image, ImageDraw, ImageOps

import tinysrgan
from tinysrgan.core.errors import UserError
from tinysrgan.data.images import ENDINGS
from tinysrgan.inference.rescuing import search
from tinysrgan.metrics import qr_reader
from tinysrgan.rescue import main

pytest.importorskip("zxingcpp")
pytest.importorskip("qrcode")
ROOT = Path(__file__).parents[2]
CODE = ROOT / "data" / "qr" / "1101-v2.png"
TEXT = "HELLO WORLD 77"
PLACES = corners(25, 0.8, 100, 2, centre=(30, 30))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Return a photograph of a code that the reader cannot read at any enlargement."""
    return photograph(TEXT, 2, PLACES, size=(60, 60))


@pytest.fixture
def path(photo, tmp_path) -> Path:
    photo.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def read(picture, *arguments):
    """Call ``rescue`` with ample time, so that the clock decides no test."""
    return tinysrgan.rescue(picture, *arguments, seconds=600)


# ---------------------------------------------------------------- from Python


def test_a_code_that_nothing_reads_is_read(photo):
    result = read(photo)
    assert result.texts == [TEXT] and result.complete and not result.disputed
    [code] = result.codes
    assert abs(code.corners - PLACES).max() < 0.7 and "camera" in code.how
    assert qr_reader.read_code(np.asarray(code.picture)) == qr_reader.read_code(np.asarray(result.picture)) == TEXT


def test_a_code_that_scans_is_read_as_it_is():
    with Image.open(CODE) as image:
        [code] = read(np.asarray(image.convert("RGB").resize((100, 100)))).codes
    assert code.text == "1101" and code.how == "as it is" and qr_reader.read_code(np.asarray(code.picture)) == "1101"


def test_light_on_dark_too(photo):
    assert read(ImageOps.invert(photo)).texts == [TEXT]


def test_every_code_of_a_picture_is_read_also_where_one_scans_as_it_is(photo):
    sheet = Image.new("L", (220, 140), 165)
    with Image.open(CODE) as image:
        sheet.paste(image.convert("L").resize((100, 100)), (5, 20))
    sheet.paste(photo, (140, 50))
    result = read(sheet)
    assert sorted(result.texts) == ["1101", TEXT]
    moved = next(code.corners for code in result.codes if code.text == TEXT)
    assert abs(moved - PLACES - (140, 50)).max() < 0.7
    assert sorted(qr_reader.read_codes(np.asarray(result.picture))) == ["1101", TEXT]


def test_a_large_picture_is_searched_in_parts(photo):
    noise = np.random.default_rng(0).normal(165, 5, (400, 500)).clip(0, 255).astype(np.uint8)
    page = Image.fromarray(noise)
    page.paste(photo, (300, 200))
    [code] = read(page).codes
    assert code.text == TEXT and abs(code.corners - PLACES - (300, 200)).max() < 0.7


def test_a_located_code_is_upscaled(photo, monkeypatch):
    monkeypatch.setattr(search, "CHEAP", 0)
    generator = tinysrgan.load()
    seen = []
    upscale = generator.upscale
    monkeypatch.setattr(generator, "upscale", lambda image: seen.append(image.size) or upscale(image))
    [code] = read(photo, generator).codes
    assert code.text == TEXT and seen and "upscaled" in code.how


def test_noise_has_no_code_and_nothing_is_made_up():
    result = read(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    assert result.codes == [] and result.picture is None and result.complete


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["waves", "writing"])
def test_textures_have_no_code_and_give_no_warning(kind):
    y, x = np.mgrid[:48, :48]
    waves = 128 + 60 * np.sin(x * 1.3 + 0.3 * y) * np.cos(0.9 * y)
    writing = Image.new("L", (48, 48), 230)
    ImageDraw.Draw(writing).multiline_text((2, 2), "8 o B e 0\noe 86 BQ\n@ O D 9 a\n6 8 B o e", fill=30, spacing=1)
    picture = Image.fromarray(waves.astype(np.uint8)) if kind == "waves" else writing
    assert read(picture).codes == []


def test_tries_that_disagree_count_for_nothing(monkeypatch):
    """Make the reader return a different text for every enlargement."""
    located = qr_reader.located_codes
    monkeypatch.setattr(
        qr_reader,
        "located_codes",
        lambda image: [qr_reader.Code(str(image.shape), code.corners) for code in located(image)[:1]],
    )
    result = read(photograph(TEXT, 1, corners(21, 1.2, 7, 1, (30, 30)), size=(60, 60)))
    assert result.codes == [] and len(result.disputed) == 1 and len(result.disputed[0]) > 1


@pytest.mark.parametrize(("unused", "texts"), [(0.2, [TEXT]), (0.0, []), (None, [])])
def test_a_sampled_symbol_counts_only_with_error_correction_to_spare(photo, monkeypatch, unused, texts):
    located = qr_reader.located_codes
    monkeypatch.setattr(
        qr_reader, "located_codes", lambda image: [replace(code, unused=unused) for code in located(image)]
    )
    result = read(photo)
    assert result.texts == texts and result.complete


def test_the_search_ends_when_its_time_does(photo):
    result = tinysrgan.rescue(ImageOps.invert(photo), seconds=0)
    assert not result.complete and result.codes == []


def test_what_is_no_picture_is_refused():
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), "photo.png"):
        with pytest.raises(UserError):
            tinysrgan.rescue(wrong)


# ---------------------------------------------------------------- the command


def test_text_and_picture(path, tmp_path, capsys):
    assert main([str(path), str(tmp_path / "codes.png"), "--seconds", "600"]) == 0
    out = capsys.readouterr().out
    assert TEXT in out and str(path) in out and "camera" in out
    with Image.open(tmp_path / "codes.png") as image:
        assert qr_reader.read_code(np.asarray(image)) == TEXT


def test_a_folder_with_json(path, tmp_path, capsys):
    Image.new("L", (40, 40), 128).save(tmp_path / "nothing.png")
    (tmp_path / "broken.png").write_text("no image")
    assert main([str(tmp_path), str(tmp_path / "out"), "--json", str(tmp_path / "found.json"), "--seconds", "600"]) == 1
    captured = capsys.readouterr()
    assert TEXT in captured.out and "nothing.png: no code" in captured.err and "broken.png" in captured.err
    found = {Path(entry["file"]).name: entry for entry in json.loads((tmp_path / "found.json").read_text())}
    assert sorted(found) == ["broken.png", "nothing.png", "photo.png"]
    assert found["photo.png"]["codes"][0]["text"] == TEXT and "error" in found["broken.png"]
    assert np.allclose(found["photo.png"]["codes"][0]["corners"], PLACES, atol=0.7)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo.png"]


def test_a_file_that_exists_is_kept_or_said_to_be_old(path, tmp_path, capsys):
    """``rescue *.png`` in a folder of two pictures names the second one as OUT."""
    grey = tmp_path / "grey.png"
    Image.new("L", (40, 40), 128).save(grey)
    before = grey.read_bytes()
    assert main([str(path), str(grey)]) == 2
    assert "grey.png exists: name a new file or add --overwrite" in capsys.readouterr().err
    assert grey.read_bytes() == before
    assert main([str(grey), str(path), "--overwrite"]) == 1
    assert f"no code could be read. {path} is as it was, from before.\n" in capsys.readouterr().err
    assert main([str(CODE), str(grey), "--overwrite"]) == 0
    assert grey.read_bytes() != before


def test_the_report_is_never_written_over_a_picture(tmp_path, capsys):
    shutil.copy(CODE, tmp_path / "code.png")
    for source, target in ((CODE, tmp_path / "x.png"), (tmp_path, tmp_path / "out")):
        taken = target / "code.png" if source == tmp_path else target
        assert main([str(source), "--json", str(taken), str(target)]) == 2  # OUT may stand behind an option
        assert f"--json and OUT both go to {taken}: give two names." in capsys.readouterr().err
        assert not taken.exists()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of any bytes")
def test_odd_names_in_the_report_and_on_one_line(tmp_path, capsys):
    name = os.fsdecode(b"a\xff\nb.png")
    shutil.copy(CODE, tmp_path / name)
    assert main([str(tmp_path), "--json", str(tmp_path / "found.json")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a\\udcff\\nb.png: 1101 (as it is)\n"
    assert json.loads((tmp_path / "found.json").read_text())[0]["file"] == str(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_who_leaves_takes_no_picture_along(tmp_path):
    for name in "ab":
        shutil.copy(CODE, tmp_path / f"{name}.png")
    read_end, write_end = os.pipe()
    os.close(read_end)
    line = [sys.executable, "-m", "tinysrgan.rescue", str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(line, stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(write_end)
    assert done.returncode == 1 and len(list((tmp_path / "out").iterdir())) == 2
    assert done.stderr.splitlines()[1] == "tinysrgan: 2 of 2 pictures gave a code."


def test_a_folder_of_which_nothing_can_be_read(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    assert main([str(tmp_path)]) == 2


def test_pipes(path):
    line = [sys.executable, "-m", "tinysrgan.rescue", "-", "-", "--seconds", "600"]
    result = subprocess.run(line, input=path.read_bytes(), capture_output=True, cwd=ROOT)
    assert result.returncode == 0 and f"standard input: {TEXT} (" in result.stderr.decode()
    with Image.open(io.BytesIO(result.stdout)) as image:
        assert qr_reader.read_code(np.asarray(image)) == TEXT


def test_an_unfinished_search_says_so(path, capsys):
    assert main([str(path), "--seconds", "0"]) == 1
    assert "stopped after 0 seconds" in capsys.readouterr().err


def test_mistakes_are_one_sentence(path, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    for words in (
        [tmp_path / "none.png"],
        [tmp_path / "text.png"],
        [path, tmp_path],
        [path, tmp_path / "x.qr"],
        [path, path],
        [path, "-", "--json", "-"],
        [path, "--json", tmp_path / "none" / "x.json"],
        [path, "--weights", tmp_path / "none.h5"],
    ):
        assert main(list(map(str, words))) == 2
        error = capsys.readouterr().err
        assert error.startswith("tinysrgan: ") and error.count("\n") == 1, error


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_the_input_is_never_replaced(path, tmp_path, capsys):
    content = path.read_bytes()
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "second.png").hardlink_to(path)
    for name in ("photo.png", "link.png", "second.png"):
        assert main([str(path), str(tmp_path / name)]) == 2
        assert f"{name} is an input too, and inputs are never" in capsys.readouterr().err
    assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("ending", [".jpeg", ".tiff", ".mpo", ".avif"])
def test_endings_are_those_of_upscale(photo, tmp_path, ending):
    if ending not in ENDINGS:
        pytest.skip("this Pillow has no AVIF")
    photo.save(tmp_path / f"photo{ending}", quality=100)
    assert main([str(tmp_path / f"photo{ending}"), str(tmp_path / f"codes{ending}")]) == 0
    with Image.open(tmp_path / f"codes{ending}") as image:
        assert qr_reader.read_code(np.asarray(image.convert("L"))) == TEXT
