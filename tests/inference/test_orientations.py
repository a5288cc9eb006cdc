"""The mean over an image's orientations: its formula, its boxes, and when it is the default."""

import numpy as np
import pytest

import tinysrgan
from tinysrgan.core.errors import UserError
from tinysrgan.data.images import to_uint8, to_unit
from tinysrgan.inference import orientations, upscaler
from tinysrgan.inference.fuse import fuse
from tinysrgan.inference.orientations import ORIENTATIONS, turned, turned_back, upscale_in_orientations
from tinysrgan.models import Generator

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 10, 3), dtype=np.uint8)
GREY = PIXELS[:, :, 0]


def generator(grey: bool = True) -> Generator:
    return Generator(blocks=1, filters=4, scale=2, seed=0, grey=grey).eval()


def mean(net: Generator, pixels: np.ndarray) -> np.ndarray:
    """The definition with flips and transposes instead of turns: float32 (2 H, 2 W, 3)."""
    results = []
    for swap in (False, True):
        for rows in (1, -1):
            for columns in (1, -1):
                image = pixels[::rows, ::columns]
                y = net.forward(to_unit(image.swapaxes(0, 1) if swap else image)[None])[0]
                results.append((y.swapaxes(0, 1) if swap else y)[::rows, ::columns])
    return np.mean(results, axis=0)


def test_the_orientations_are_all_different_and_can_be_undone():
    results = [turned(PIXELS, *way) for way in ORIENTATIONS]
    assert len({image.tobytes() for image in results}) == 8
    for way, image in zip(ORIENTATIONS, results, strict=True):
        assert np.array_equal(turned_back(image, *way), PIXELS)


@pytest.mark.parametrize("side", [256, 6])  # at once, and in boxes with margins
def test_the_result_is_the_mean(side, monkeypatch):
    monkeypatch.setattr(orientations, "SIDE", side)
    net = generator()
    result = np.zeros((26, 20, 3), np.float32)
    boxes = list(upscale_in_orientations(fuse(net), PIXELS))
    assert len(boxes) == (1 if side == 256 else 6)
    for box, y in boxes:
        result[2 * box.top : 2 * box.bottom, 2 * box.left : 2 * box.right] = y
    np.testing.assert_allclose(result, mean(net, PIXELS), atol=1e-5)
    assert abs(result - net.forward(to_unit(PIXELS)[None])[0]).max() > 0.01


def test_eight_are_the_default_for_small_images_and_generators_of_codes(monkeypatch):
    once = {
        grey: to_uint8(generator(grey).forward(to_unit(GREY[:, :, None].repeat(3, 2))[None])[0].mean(2))
        for grey in (0, 1)
    }
    eight = to_uint8(mean(generator(), GREY[:, :, None].repeat(3, 2)).mean(2))

    def matches(expected: np.ndarray, grey: bool, orientations: int | None) -> bool:
        result = tinysrgan.Upscaler(generator(grey), "cpu", orientations)(GREY)
        return abs(result.astype(int) - expected).max() <= 1

    assert not abs(eight.astype(int) - once[1]).max() <= 1
    assert matches(eight, True, None) and matches(eight, True, 8) and matches(eight, False, 8)
    assert matches(once[1], True, 1) and matches(once[0], False, None)
    monkeypatch.setattr(upscaler, "FEW_PIXELS", 129)
    assert matches(once[1], True, None) and matches(eight, True, 8)


def test_other_numbers_are_refused():
    with pytest.raises(UserError, match="orientations is 1 or 8, not 4"):
        tinysrgan.Upscaler(generator(), "cpu", 4)
