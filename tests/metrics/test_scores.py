"""Scores on held-out images, and the table of the scores."""

import math
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.images import DataError, enlarge, to_uint8, to_unit
from tinysrgan.data.listing import find_images
from tinysrgan.inference.upscaler import Upscaler
from tinysrgan.metrics.figures import GREEN, RED
from tinysrgan.metrics.psnr_ssim import psnr, ssim
from tinysrgan.metrics.qr_reader import ScanTally
from tinysrgan.metrics.scores import Scores, Validation, table, upscale
from tinysrgan.models import Generator

CODES = sorted((Path(__file__).parents[2] / "data" / "qr").glob("*.png"))


@pytest.fixture
def reader():
    pytest.importorskip("zxingcpp")


@pytest.fixture
def photos(tmp_path):
    """Write six images without a code."""
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")
    return tmp_path


def validation(folder: Path, limit: int = 48) -> Validation:
    return Validation(ImagePairs(find_images(folder), 64, 4), limit)


def scores(*readings: tuple[str, int | None, str | None], db: float = 20.0, likeness: float = 0.5) -> Scores:
    tally = ScanTally()
    for reading in readings:
        tally.add(*reading)
    return Scores([db], [likeness], tally)


def test_the_real_images_score_best_and_bicubic_as_the_metrics_say(reader):
    judge = Validation(ImagePairs(CODES[:8], 128, 4), 8)
    perfect = judge.score(judge.hr).row()
    assert perfect == {"psnr": math.inf, "ssim": pytest.approx(1), "scan %": 100}
    row = judge.score(judge.bicubic).row()
    couples = [(enlarge(lr, 4), hr) for lr, hr in zip(judge.lr, judge.hr, strict=True)]
    assert row["psnr"] == pytest.approx(np.mean([psnr(*couple) for couple in couples]))
    assert row["ssim"] == pytest.approx(np.mean([ssim(*couple) for couple in couples]))
    assert row["scan %"] < 100
    wrong = judge.score(judge.hr[4:] + judge.hr[:4])  # codes with other texts
    assert wrong.scans.misreads() == 8 and wrong.row()["scan %"] == 0


def test_versions_and_texts_are_those_of_the_originals(reader):
    judge = Validation(ImagePairs(CODES[:8], 128, 4), 8)
    assert [sample.version for sample in judge.samples] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert [sample.text for sample in judge.samples] == [path.name[:4] for path in CODES[:8]]


def test_the_first_readable_images_are_taken(photos):
    everything = validation(photos, limit=5)
    (photos / "0.png").write_bytes(b"broken")
    (photos / "2.png").write_bytes(b"broken")
    pairs = ImagePairs(find_images(photos), 64, 4)
    judge = Validation(pairs, 3)
    assert len(judge.hr) == len(judge.lr) == len(judge.bicubic) == len(judge.samples) == 3
    assert all(np.array_equal(hr, everything.hr[i]) for hr, i in zip(judge.hr, (1, 3, 4), strict=True))
    assert [path.name for path in pairs.skipped] == ["0.png", "2.png"]
    for path in photos.iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="None of the held-out images"):
        validation(photos)


def test_photos_without_codes_have_no_scan_columns(photos):
    judge = validation(photos)
    row = judge.score(judge.bicubic).row()
    assert math.isnan(row["scan %"]) and math.isfinite(row["psnr"])
    text = table({"bicubic": judge.score(judge.bicubic), "SR": judge.score(judge.hr)})
    assert "scan" not in text and "codes" not in text and "misread" not in text
    assert [len(line.split()) for line in text.splitlines()] == [3, 3, 3]  # the header "PSNR, dB" is two words
    picture = np.asarray(judge.picture(judge.bicubic)).reshape(-1, 3)
    assert not any((picture == colour).all(axis=1).any() for colour in (GREEN, RED))


def test_without_the_reader_all_but_the_scanning_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    judge = Validation(ImagePairs(CODES[:3], 64, 4), 3)
    text = table({"bicubic": judge.score(judge.bicubic)})
    assert "scan" not in text and "bicubic" in text
    assert judge.picture(judge.hr).width > 4 * 64


def test_frames_tell_what_scans(reader):
    judge = Validation(ImagePairs(CODES[:2], 128, 4), 2)
    white = [np.full((128, 128, 3), 255, np.uint8)] * 2
    for sr, columns in ((judge.hr, 2), (white, 1)):  # HR always scans; LR and bicubic of version 2 do not
        picture = np.asarray(judge.picture(sr, rows=2))[-60:]  # the second row only
        row = picture[10]
        green = (row == GREEN).all(axis=1)
        assert np.count_nonzero(np.diff(green.astype(int)) == 1) == 2 * columns


def test_originals_are_read_one_at_a_time(tmp_path, reader):
    """Texts are read from the full-size files one by one, because together they may exceed the memory."""
    for i in range(20):
        Image.new("RGB", (600, 600), (i, 0, 0)).save(tmp_path / f"{i}.png")
    pairs = ImagePairs(find_images(tmp_path), 16, 4)
    tracemalloc.start()
    try:
        assert [sample.text for sample in Validation(pairs, 20).samples] == [None] * 20
        assert tracemalloc.get_traced_memory()[1] < 5 * 600 * 600 * 3
    finally:
        tracemalloc.stop()


def test_upscale_is_the_generator_in_eval_mode_whatever_the_batch():
    generator = Generator(blocks=1, filters=4, scale=4, seed=0)
    lr = [np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8) for i in range(5)]
    generator.forward(to_unit(np.stack(lr)))  # so that the running statistics differ from every batch's
    results = upscale(generator, lr, np, batch=2)
    assert len(results) == 5 and results[0].shape == (32, 32, 3) and results[0].dtype == np.uint8
    assert generator.training
    generator.eval()
    for small, large in zip(lr, results, strict=True):
        alone = to_uint8(generator.forward(to_unit(small[None])))[0]
        assert abs(alone.astype(int) - large).max() <= 1
    assert upscale(generator, [], np) == []


def test_a_table_lines_up():
    good = scores(("a", 1, "a"), ("b", 2, "b"), ("c", 3, None), ("d", 4, "x"), ("e", None, "e"), db=7.25)
    bad = scores(("a", 1, None), ("b", 2, None), ("c", 3, None), ("d", 4, None), ("e", None, None), db=math.inf)
    lines = table({"SR": good, "a rather long name": bad}).splitlines()
    assert lines == [
        "                    PSNR, dB    SSIM  scans, %: v1   v2  v3  v4  v1-v3  all  misread",
        "SR                      7.25  0.5000           100  100   0   0     67   60        1",
        "a rather long name       inf  0.5000             0    0   0   0      0    0        0",
        "codes                                            1    1   1   1      3    5",
    ]


@pytest.mark.parametrize("versions, columns", [([1, 2, 3], "v1 v2 v3 all"), ([4, None], "v4 all"), ([None], "all")])
def test_a_table_has_only_the_versions_that_there_are(versions, columns):
    header = table({"SR": scores(*(("a", version, "a") for version in versions))}).splitlines()[0]
    assert header.split()[5:-1] == columns.split()


def test_grey_stays_grey_as_when_upscaling():
    """``upscale`` treats grey images like ``Upscaler``, so training's last table and ``evaluate`` agree."""
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8), 3, axis=2)
    colour = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    generator = Generator(1, 4, seed=1)
    in_training = upscale(generator, [grey, colour], np)
    assert (in_training[0] == in_training[0][..., :1]).all() and not (in_training[1] == in_training[1][..., :1]).all()
    for image, result in zip((grey, colour), in_training, strict=True):
        np.testing.assert_allclose(Upscaler(generator)(image).astype(int), result, atol=1)
