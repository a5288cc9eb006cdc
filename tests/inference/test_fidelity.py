"""The fidelity measure: results that match the image, results that do not, and sums over tiles."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_upscaler import repeating

import tinysrgan
from benchmarks.qr.samples import TRACKS, samples
from tinysrgan.core.errors import UnlikeWarning
from tinysrgan.data.augment import HARD
from tinysrgan.data.images import decode
from tinysrgan.data.source import Source
from tinysrgan.inference import tiles
from tinysrgan.inference.fidelity import Comparison, Fidelity
from tinysrgan.inference.upscaler import SHIPPED

ROOT = Path(__file__).parents[2]
NOISE = np.random.default_rng(0)
IMAGE = NOISE.uniform(-1, 1, (12, 10, 1))


def fidelity(small: np.ndarray, large: np.ndarray) -> Fidelity:
    comparison = Comparison(4)
    comparison.add(small, large)
    return comparison.fidelity()


def enlarged(small: np.ndarray) -> np.ndarray:
    """Enlarge the image four times and add detail finer than its pixels."""
    detail = 0.1 * np.tile([[1, -1, 1, -1], [-1, 1, -1, 1]], (2 * small.shape[0], small.shape[1]))[:, :, None]
    return 0.8 * small.repeat(4, axis=0).repeat(4, axis=1) + detail


def test_detail_is_no_difference():
    result = fidelity(0.8 * IMAGE, enlarged(IMAGE))
    assert result.psnr > 50 and result.snr > 40 and result.suits


def test_psnr_is_that_of_the_shrunk_result():
    result = fidelity(0.8 * IMAGE + 0.02, enlarged(IMAGE))
    assert result.psnr == pytest.approx(40, abs=0.01)


def test_contrast_and_blur_that_the_net_took_away_are_allowed_for():
    dim = fidelity(0.1 * IMAGE + 0.5, enlarged(IMAGE))
    assert dim.psnr < 15 and dim.snr > 25 and dim.suits
    padded = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    blurred = fidelity(0.5 * windows.mean(axis=(3, 4)), enlarged(IMAGE))
    assert blurred.psnr < 15 and blurred.snr > 30


def test_what_is_not_allowed_for():
    for other in (-IMAGE, 2 * IMAGE.clip(-0.5, 0.5), NOISE.uniform(-1, 1, IMAGE.shape)):
        assert not fidelity(other, enlarged(IMAGE) * 0.5).suits
    assert not fidelity(np.zeros_like(IMAGE), np.ones((48, 40, 1))).suits  # all grey became white
    assert fidelity(np.ones_like(IMAGE), 1.5 * np.ones((48, 40, 1))).suits  # the written image is clipped
    assert fidelity(np.zeros((1, 1, 3)), np.zeros((4, 4, 3))).suits


def test_tiles_add_up_to_the_whole(monkeypatch):
    image = Image.fromarray(NOISE.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    net = repeating()
    net["tail"].b.value[:] = (0.1, 0, -0.2)
    upscaler = tinysrgan.Upscaler(net, device="cpu")
    whole = upscaler.upscale(image)[1]
    monkeypatch.setattr(tiles.upscale_in_tiles, "__defaults__", (np, 20_000))
    tiled = upscaler.upscale(image)[1]
    assert tiled.psnr == pytest.approx(whole.psnr, abs=1e-4)
    assert tiled.snr == pytest.approx(whole.snr, abs=1)  # the blur stops at the borders of these tiny tiles


# ---------------------------------------------------------------- the shipped generator


@pytest.fixture(scope="module")
def upscaler():
    return tinysrgan.load(ROOT / "weights" / SHIPPED, device="cpu")


def warned(upscaler, image) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        upscaler(image)
    assert all(warning.category is UnlikeWarning and warning.filename == __file__ for warning in caught)
    return bool(caught)


@pytest.mark.parametrize("track", [track for track in TRACKS if track != "camera"])
def test_no_warning_for_the_benchmarks_codes(upscaler, track):
    pytest.importorskip("qrcode")
    assert not any(warned(upscaler, sample.lr) for sample in samples(track, 3))


def test_no_warning_for_dim_blurred_and_noisy_codes(upscaler):
    rng = np.random.default_rng(3)
    for path in sorted((ROOT / "data" / "qr").glob("1*.png"))[:12]:
        variant = HARD.vary(Source(decode(path)), 384, 32, rng)
        assert not warned(upscaler, HARD.degrade(variant, 32, rng)), path


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee", "cat"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_warning_for_photographs(upscaler, name, mode):
    data = pytest.importorskip("skimage.data")
    image = Image.fromarray(getattr(data, name)()).convert(mode)
    image.thumbnail((64, 64), Image.Resampling.BOX)
    assert warned(upscaler, image)
