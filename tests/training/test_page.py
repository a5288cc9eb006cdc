"""index.html holds the run's pictures, curves and options, loads nothing, and a browser draws it."""

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tinysrgan.training.page import PICTURES, page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOG = """step,epoch,phase,seconds,images/s,pixel,a </script> loss,D(real),psnr,psnr bicubic
10,0.10,pretrain,1.0,30.0,0.5,,,,
20,0.20,pretrain,2.0,30.0,0.25,,,12.5,11.5
30,0.30,gan,3.0,30.0,,-1.5,0.75,nan,11.5
40,0.40,gan,4.0,30.0,,2.5,0.5,13.5,11.5
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a <run>"
    (folder / "pictures").mkdir(parents=True)
    for step in (20, 40):
        Image.new("L", (8, 8), step).save(folder / "pictures" / f"step-{step:06d}.png")
    (folder / "log.csv").write_text(LOG)
    return folder


def held(text: str, name: str):
    """Return the value of a constant in the page's script."""
    return json.loads(re.search(rf"^const {name} = (.*); // ", text, re.M)[1])


def test_it_holds_the_pictures_and_columns(run):
    text = page(run, 40, 100, {"batch_size": 8, "note": "<b>"})
    pictures = held(text, "pictures")
    assert [step for step, _ in pictures] == [20, 40]
    for step, source in pictures:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == (run / "pictures" / f"step-{step:06d}.png").read_bytes()
    assert held(text, "columns") == {
        "step": [10, 20, 30, 40],
        "pixel": [0.5, 0.25, None, None],
        "a </script> loss": [None, None, -1.5, 2.5],
        "D(real)": [None, None, 0.75, 0.5],
        "psnr": [None, 12.5, None, 13.5],
        "psnr bicubic": [None, 11.5, 11.5, 11.5],
    }
    assert text.count("</script>") == 1
    assert "<tr><td>batch size<td>8<tr><td>note<td>&lt;b&gt;" in text
    assert html.escape(f"--resume '{run}'") in text


def test_it_loads_nothing(run):
    text = page(run, 40, 100, {})
    assert not re.findall(r"(?:src|href)=|@import|url\(|fetch\(", re.sub(r"picture\"\)\.src", "", text))
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_rows_after_the_step_are_left_out(run):
    assert held(page(run, 20, 100, {}), "columns")["step"] == [10, 20]


def test_of_many_pictures_some_are_chosen_from_the_first_to_the_last(run):
    for step in range(100, 200):
        shutil.copy(run / "pictures" / "step-000020.png", run / "pictures" / f"step-{step:06d}.png")
    steps = [step for step, _ in held(page(run, 199, 200, {}), "pictures")]
    assert len(steps) == PICTURES and steps[0] == 20 and steps[-1] == 199 and steps == sorted(steps)


def test_a_run_without_anything_yet(tmp_path):
    text = page(tmp_path, 0, 10, {})
    assert held(text, "pictures") == [] and held(text, "columns") == {}


def drawn_by_a_browser(text: str, folder: Path) -> str:
    """The page's elements after its script has run."""
    (folder / "page.html").write_text(text)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--dump-dom", (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_it(run, tmp_path):
    text = page(run, 40, 100, {})
    move = '<script>slider.value = 0; slider.dispatchEvent(new Event("input"));</script>'
    drawn = drawn_by_a_browser(text + move, tmp_path)
    assert re.findall(r'<svg [^>]*aria-label="([^"]*)"', drawn) == [
        "PSNR, dB",
        "the discriminator's opinion: 1 is real",
        "loss",
    ]
    curves = [points.split() for points in re.findall(r'<polyline points="([^"]*)"', drawn)]
    assert [len(curve) for curve in curves] == [2, 3, 2, 2, 2]
    assert [point.split(",")[0] for point in curves[1]] == ["475", "687.5", "900"]  # steps 20, 30, 40 of 40
    assert '<span id="at">step 20</span>' in drawn
    assert f'src="{held(text, "pictures")[0][1]}"' in drawn


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_picture_after_the_last_row_is_on_the_charts(run, tmp_path):
    """A stop saves a picture at a step that has no row of its own."""
    shutil.copy(run / "pictures" / "step-000040.png", run / "pictures" / "step-000047.png")
    drawn = drawn_by_a_browser(page(run, 47, 100, {}), tmp_path)
    marks = re.findall(r'<line [^>]*stroke-dasharray[^>]*x1="([^"]*)"', drawn)
    assert marks == ["900"] * 3  # the right end
