"""Colour with a net trained on grey images: the net enlarges luma, bicubic enlarges chroma."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_upscaler import repeated, repeating

import tinysrgan
from tinysrgan.core.errors import UnlikeWarning
from tinysrgan.formats.checkpoint import load_generator
from tinysrgan.inference import tiles
from tinysrgan.inference.colour import Chroma

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "weights").glob("qr_*.h5"))


def picture(width: int = 24, height: int = 20) -> Image.Image:
    """Return an image of smooth colours, far from black and white."""
    y, x = np.mgrid[:height, :width] / 24.0
    channels = [128 + 60 * np.sin(4 * x), 128 + 50 * np.cos(3 * y), 128 + 60 * np.sin(3 * x + 4 * y)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def ycbcr(image) -> np.ndarray:
    return np.asarray(image.convert("YCbCr"), int)


@pytest.fixture
def upscaler():
    return tinysrgan.Upscaler(repeating(grey=True), device="cpu")


def test_the_shipped_nets_say_that_they_know_only_grey():
    assert len(SHIPPED) == 3
    for path in SHIPPED:
        assert load_generator(path).config["grey"], path


@pytest.mark.parametrize("memory", [20_000, tiles.MEMORY])
def test_luma_goes_through_the_net_and_chroma_is_bicubic(upscaler, monkeypatch, memory):
    monkeypatch.setattr(tiles.upscale_in_tiles, "__defaults__", (np, memory))
    image = picture()
    result = upscaler(image)
    size = (4 * image.width, 4 * image.height)
    luma, *chroma = image.convert("YCbCr").split()
    bands = [
        luma.resize(size, Image.Resampling.NEAREST),
        *(band.resize(size, Image.Resampling.BICUBIC) for band in chroma),
    ]
    assert np.abs(np.asarray(result, int) - np.asarray(Image.merge("YCbCr", bands).convert("RGB"), int)).max() <= 1


def test_a_part_of_the_chroma_is_that_part_of_the_whole():
    chroma = Chroma(picture())
    whole = chroma.add_to(np.zeros((80, 96, 1), np.float32), (0, 0, 24, 20))
    part = chroma.add_to(np.zeros((32, 28, 1), np.float32), (5, 3, 12, 11))
    assert np.array_equal(part, whole[12:44, 20:48])


def test_the_generators_own_colours_are_left_out():
    """A net trained on grey images may output any colour, so its chroma is not used."""
    net = repeating(grey=True)
    net["tail"].b.value[:] = (0.3, 0, -0.3)
    assert np.abs(ycbcr(tinysrgan.Upscaler(net, device="cpu")(picture()))[::4, ::4] - ycbcr(picture())).max() < 20
    net.config["grey"] = False
    assert np.abs(ycbcr(tinysrgan.Upscaler(net, device="cpu")(picture()))[::4, ::4] - ycbcr(picture())).max() > 20


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_photograph_keeps_its_colour_through_weights_for_codes(path):
    upscaler = tinysrgan.load(path, device="cpu")
    with pytest.warns(UnlikeWarning):
        result = ycbcr(upscaler(picture(48, 40)))
    expected = ycbcr(picture(48, 40).resize((192, 160), Image.Resampling.BICUBIC))
    inside = np.abs(result[:, :, 0] - 128) < 80  # elsewhere luma is near black or white, which limits chroma
    assert inside.mean() > 0.1
    assert np.abs(result - expected)[inside][:, 1:].mean() < 3


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grey_is_as_without(channels):
    """Grey images give identical pixels with a grey net and a colour net."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, channels), dtype=np.uint8)
    if channels > 2:
        pixels[:, :, :3] = pixels[:, :, :1]
    results = []
    for grey in (True, False):
        net = tinysrgan.models.Generator(1, 4, seed=2, grey=grey)
        results.append(tinysrgan.Upscaler(net, "cpu", orientations=1).upscale(api_image(pixels))[0])
    assert np.array_equal(*map(np.asarray, results))


def api_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def test_transparent_colour(upscaler):
    """Half-transparent orange is blended with white paper, upscaled, and still looks the same."""
    image = Image.new("RGBA", (6, 6), (250, 120, 20, 128))
    result = upscaler(image)
    assert result.mode == "RGBA"
    assert np.abs(np.asarray(result, int) - repeated(np.asarray(image))).max() <= 5  # rounding, doubled at half opacity
