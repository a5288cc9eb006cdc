"""The command ``python -m tinysrgan.rescue``: what it reads, what it writes, how it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.qr.samples import samples
from tinysrgan.data.images import ENDINGS, area_average
from tinysrgan.metrics.qr_reader import read_code

pytest.importorskip("zxingcpp")
pytest.importorskip("qrcode")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
CODE = ROOT / "data" / "qr" / "1101-v2.png"


def rescue(*arguments) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "tinysrgan.rescue", *arguments]
    return subprocess.run(list(map(str, line)), capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT)


@pytest.mark.parametrize("quarter", [0, 180])
def test_a_code_that_nothing_reads_is_saved(tmp_path, quarter):
    with Image.open(CODE) as image:
        small = area_average(image.convert("L").resize((128, 128), Image.Resampling.BOX), 32)
    picture = np.rot90(np.pad(small, 20, constant_values=255), quarter // 90)
    Image.fromarray(picture).save(tmp_path / "small.png")
    result = rescue(tmp_path / "small.png", tmp_path / "large.png")
    assert result.returncode == 0, result.stderr
    assert "1101" in result.stdout
    with Image.open(tmp_path / "large.png") as image:
        assert read_code(np.asarray(image.convert("L"))) == "1101"


def test_what_upscale_alone_can_do_rescue_can_too(tmp_path):
    sample = samples("hard", 2)[3]
    Image.fromarray(sample.lr).save(tmp_path / "small.png")
    result = rescue(tmp_path / "small.png", tmp_path / "large.png")
    assert result.returncode == 0 and sample.text in result.stdout


@pytest.mark.parametrize("ending", [".jpeg", ".tiff", ".mpo", ".avif"])
def test_endings_are_those_of_upscale(tmp_path, ending):
    if ending not in ENDINGS:
        pytest.skip("this Pillow has no AVIF")
    sample = samples("hard", 2)[3]
    Image.fromarray(sample.lr).save(tmp_path / f"small{ending}", quality=100)
    result = rescue(tmp_path / f"small{ending}", tmp_path / f"large{ending}")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / f"large{ending}") as image:
        assert read_code(np.asarray(image.convert("L"))) == sample.text


def test_a_code_that_scans_needs_no_rescue(tmp_path):
    result = rescue(CODE, tmp_path / "large.png")
    assert result.returncode == 0 and "1101 (as it is)" in result.stdout


def test_where_there_is_no_code_nothing_is_saved(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)).save(tmp_path / "noise.png")
    result = rescue(tmp_path / "noise.png", tmp_path / "large.png")
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "no code could be read" in result.stderr
    assert not (tmp_path / "large.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_the_picture_is_never_replaced(tmp_path):
    picture = tmp_path / "small.png"
    picture.write_bytes(CODE.read_bytes())
    (tmp_path / "link.png").symlink_to(picture)
    (tmp_path / "second.png").hardlink_to(picture)
    for name in ("small.png", "link.png", "second.png"):
        result = rescue(picture, tmp_path / name)
        assert result.returncode == 2 and f"{name} is an input too, and inputs are never" in result.stderr
    assert picture.read_bytes() == CODE.read_bytes() and len(list(tmp_path.iterdir())) == 3


def test_mistakes_are_one_sentence(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for picture, out in (
        (tmp_path / "none.png", "x.png"),
        (tmp_path / "text.png", "x.png"),
        (CODE, tmp_path),
        (CODE, "x.qr"),
    ):
        result = rescue(picture, out)
        assert result.returncode == 2 and result.stderr.startswith("tinysrgan: ") and result.stderr.count("\n") == 1
