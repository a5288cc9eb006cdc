"""``--augment camera`` on a folder: it photographs the folder's own codes, and names the images without one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("zxingcpp")
pytest.importorskip("qrcode")

from benchmarks.qr.samples import STILL
from tinysrgan.data.augment import HARD
from tinysrgan.data.camera import Camera
from tinysrgan.data.images import DataError
from tinysrgan.data.own_codes import PhotographedCodes
from tinysrgan.data.qr_codes import modules
from tinysrgan.metrics import qr_reader
from tinysrgan.train import main

SMALL = replace(STILL, pitch=(0.8, 0.8))  # a whole code fits into 32 pixels


@pytest.fixture
def folder(tmp_path: Path) -> list[Path]:
    """Images of three codes, by their texts, and one of something else."""
    for text in ("ONE", "TWO", "THREE"):
        symbol = np.kron(np.pad(1 - modules(text, 1, "M", mask=5), 4, constant_values=1), np.ones((3, 3)))
        Image.fromarray((255 * symbol).astype(np.uint8)).save(tmp_path / f"{text}.png")
    Image.new("L", (64, 64), 200).save(tmp_path / "plain.png")
    return sorted(tmp_path.iterdir())


def photographed(paths: list[Path], camera: Camera = SMALL, share: float = 1) -> PhotographedCodes:
    return PhotographedCodes(paths, 128, 4, HARD, 1, camera, qr_reader.modules_of, share)


def test_the_modules_are_read_as_they_were_written(folder):
    for path in folder[:2]:
        np.testing.assert_array_equal(
            qr_reader.modules_of(np.asarray(Image.open(path))), modules(path.stem, 1, "M", mask=5)
        )
    assert qr_reader.modules_of(np.full((64, 64), 200, np.uint8)) is None


def test_a_batch_shows_the_folders_codes(folder):
    pairs = photographed(folder)
    lr, hr = pairs.batch(0, 12)
    assert (lr.shape, hr.shape, lr.dtype) == ((12, 32, 32, 3), (12, 128, 128, 3), np.float32)
    texts = [qr_reader.read_code(np.rint(127.5 + 127.5 * image).astype(np.uint8)) for image in hr]
    assert set(texts) == {"ONE", "TWO", "THREE"}
    assert list(pairs.skipped) == [folder[3]]
    assert "no reader reads one in it" in pairs.skipped[folder[3]]


def test_the_same_step_gives_the_same_batch(folder):
    pairs, again = (photographed(folder[:3], Camera(), 0.5) for _ in range(2))
    later = pairs.batch(1, 4)
    pairs.batch(0, 4)
    for one, other in zip(again.batch(1, 4), later, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_other_images_are_varied_as_before(folder):
    every, none = photographed(folder[:3], share=1), photographed(folder[:3], share=0)
    half = photographed(folder[:3], share=0.5)
    kinds = {
        "photographed" if np.array_equal(half.draw(0, i)[0], every.draw(0, i)[0]) else "varied"
        for i in range(12)
        if np.array_equal(half.draw(0, i)[0], every.draw(0, i)[0])
        or np.array_equal(half.draw(0, i)[0], none.draw(0, i)[0])
    }
    assert kinds == {"photographed", "varied"}
    np.testing.assert_array_equal(none.draw(1, 5)[0], none.pair(1, 5)[0])


def test_a_folder_without_codes_is_an_error_that_says_so(folder):
    with pytest.raises(DataError, match=r"None of the 1 images.*no reader reads one"):
        photographed(folder[3:]).batch(0, 1)


def test_training_on_a_folder_of_codes(folder, tmp_path, capsys):
    arguments = f"{tmp_path} --augment camera --blocks 1 --filters 4 --batch-size 2 --pretrain-steps 2 --steps 0"
    assert main([*arguments.split(), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert (tmp_path / "run" / "generator.h5").exists()


def test_an_old_reader_is_named(monkeypatch, folder):
    class Old:
        text = "ONE"

    monkeypatch.setattr(qr_reader, "_barcodes", lambda image: [Old()])
    with pytest.raises(ValueError, match=r"zxing-cpp 2\.3"):
        qr_reader.modules_of(np.zeros((8, 8), np.uint8))
