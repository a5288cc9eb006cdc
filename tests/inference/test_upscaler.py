"""The Python interface: inputs, outputs and errors.

Most tests use a generator whose weights repeat every pixel ``scale`` times in both directions, so the expected output
is known exactly.
"""

import multiprocessing
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinysrgan
from tinysrgan.core.errors import UserError
from tinysrgan.data.images import to_uint8, to_unit
from tinysrgan.formats.checkpoint import save_generator
from tinysrgan.inference import upscaler as upscaler_module
from tinysrgan.layers import BatchNorm, Conv2D, PReLU
from tinysrgan.models import Generator

ROOT = Path(__file__).parents[2]
COLOUR = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)


def repeating(scale: int = 4, **config) -> Generator:
    """Return a generator that repeats every pixel, for any architecture."""
    net = Generator(**{"blocks": 1, "filters": 4, "scale": scale, "seed": 0} | config).eval()
    for layer in net.layers():
        if isinstance(layer, PReLU):
            layer.slope.value[:] = 1
        elif isinstance(layer, BatchNorm):
            layer.gamma.value[:] = 0  # so that residual blocks return their input
        elif isinstance(layer, Conv2D):
            size, _, inputs, outputs = layer.w.value.shape
            copies = 4 if (inputs, outputs) == (4, 16) else 1  # pixel shuffle makes a 2x2 cell of four channels
            layer.w.value[:] = 0
            for i in range(min(inputs, 3)):
                layer.w.value[size // 2, size // 2, i, copies * i : copies * (i + 1)] = 1
    return net


def repeated(pixels: np.ndarray, scale: int = 4) -> np.ndarray:
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.fixture
def upscaler():
    return tinysrgan.Upscaler(repeating(), device="cpu")


# ---------------------------------------------------------------- loading and calling


def test_three_lines(tmp_path):
    save_generator(tmp_path / "generator.h5", repeating(), {})
    for name in (tmp_path / "generator.h5", str(tmp_path / "generator.h5")):
        upscaler = tinysrgan.load(name, device="cpu")
        assert upscaler.scale == 4 and "CPU" in upscaler.where
        assert np.array_equal(upscaler(COLOUR[:, :, :3]), repeated(COLOUR[:, :, :3]))


def test_the_shipped_generator_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setattr(upscaler_module, "WEIGHTS", tmp_path)
    with pytest.raises(
        UserError, match=rf"ships with tinysrgan is not at .*{re.escape(upscaler_module.SHIPPED)}: train one"
    ):
        tinysrgan.load()
    save_generator(tmp_path / upscaler_module.SHIPPED, repeating(), {})
    assert tinysrgan.load(device="cpu").scale == 4


def test_the_package_imports_nothing_until_it_is_asked():
    program = (
        "import sys, tinysrgan; assert not {'numpy', 'PIL', 'h5py'} & sys.modules.keys();"
        "tinysrgan.load, tinysrgan.Upscaler; from tinysrgan import load, Upscaler; assert 'h5py' in sys.modules;"
        "assert not {'zxingcpp', 'matplotlib', 'qrcode', 'torch'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = tinysrgan.lod


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_scales(scale):
    upscaler = tinysrgan.Upscaler(repeating(scale), device="cpu")
    assert upscaler.scale == scale
    assert np.array_equal(upscaler(COLOUR[:, :, :3]), repeated(COLOUR[:, :, :3], scale))


def test_it_is_the_generators_own_result():
    """The result equals the net in eval mode, rounded once and clipped."""
    net = Generator(2, 8, seed=1)
    for tensor in net.tensors().values():
        tensor.value *= 1.5
    pixels = np.random.default_rng(1).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    result = tinysrgan.Upscaler(net, device="cpu")(pixels)
    expected = to_uint8(net.forward(to_unit(pixels)[None])[0])
    assert not net.training
    assert expected.std() > 1
    assert np.abs(result.astype(int) - expected).max() <= 1 and (result == expected).mean() > 0.99


def test_progress_counts_the_pixels(upscaler):
    counts = []
    upscaler(COLOUR[:, :, :3], counts.append)
    assert sum(counts) == 7 * 5


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_pool_of_processes(method):
    images = [np.random.default_rng(i).integers(0, 256, (20, 30), dtype=np.uint8) for i in range(4)]
    upscaler = tinysrgan.load(device="cpu")
    expected = [upscaler(image) for image in images]
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map_async(upscaler, images).get(timeout=120)
    assert all(map(np.array_equal, results, expected))


def test_a_pickle_chooses_its_device_at_the_first_image(upscaler, monkeypatch):
    """``loads`` must not raise: a pool that cannot unpickle would wait for ever."""
    upscaler.device = "cuda"
    content = pickle.dumps(upscaler)
    monkeypatch.setitem(sys.modules, "cupy", None)
    copy = pickle.loads(content)
    with pytest.raises(UserError, match="cuda doesn't work here"):
        copy(COLOUR)


def test_a_pickle_is_no_larger_than_the_file():
    """A pickle holds neither transformed filters nor the arrays left behind by a move from a GPU."""
    upscaler = tinysrgan.load(device="cpu")
    size = (upscaler_module.WEIGHTS / upscaler_module.SHIPPED).stat().st_size
    upscaler(np.zeros((40, 40), np.uint8))
    assert len(pickle.dumps(upscaler)) < size
    assert pickle.loads(pickle.dumps(upscaler)).where == upscaler.where
    for tensor in upscaler.net.tensors().values():
        tensor.value = tensor.value.copy()
    assert len(pickle.dumps(upscaler.net)) < size


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 2), (7, 5, 3), (7, 5, 4), (1, 1), (1, 9, 3), (9, 1, 4)])
def test_shapes(upscaler, shape):
    pixels = np.full(shape, 90, np.uint8)
    if len(shape) == 3 and shape[2] % 2 == 0:
        pixels[:, :, -1] = 255
    before = pixels.copy()
    result = upscaler(pixels)
    assert result.dtype == np.uint8 and result.flags.writeable
    assert np.array_equal(result, repeated(pixels))
    assert np.array_equal(pixels, before)


def test_any_memory_layout(upscaler):
    for pixels in (COLOUR[::-1, ::2, :3], COLOUR[:, :, 2::-1], np.asfortranarray(COLOUR[:, :, :3])):
        assert np.array_equal(upscaler(pixels), repeated(pixels))
    frozen = COLOUR.copy()
    frozen.flags.writeable = False
    assert upscaler(frozen).shape == (28, 20, 4)


def test_16_bits_become_8(upscaler):
    pixels = np.array([[0, 128, 129, 257, 25828, 25829, 65535]], np.uint16)
    assert upscaler(pixels)[0, ::4].tolist() == [0, 0, 1, 1, 100, 101, 255]
    assert upscaler(np.stack([pixels] * 3, axis=2)).shape == (4, 28, 3)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (np.zeros((0, 5, 3), np.uint8), "not \\(0, 5, 3\\)"),
        (np.zeros((5, 5, 5), np.uint8), "1 to 4 channels"),
        (np.zeros((5, 5, 0), np.uint8), "1 to 4 channels"),
        (np.zeros(5, np.uint8), "not \\(5,\\)"),
        (np.zeros((1, 5, 5, 3), np.uint8), "not \\(1, 5, 5, 3\\)"),
        (np.uint8(3) + np.zeros((), np.uint8)[None][0:0], "not \\(0,\\)"),
        (np.zeros((5, 5, 3)), "uint16, 0 to 65535, not float64"),
        (np.zeros((5, 5, 3), np.float32), "not float32"),
        (np.zeros((5, 5, 3), np.int64), "not int64"),
        (np.zeros((5, 5), bool), "not bool"),
        (np.array([["a"]]), "not <U1"),
        (np.array([[None]]), "not object"),
        ([[1, 2]], "not list"),
        ("blurry.png", "not str"),
        (None, "not NoneType"),
        (Image.new("RGB", (0, 4)), "0x4 pixels has nothing"),
        (Image.new("F", (4, 4)), "floating-point"),
        (Image.new("I", (4, 4), 70000), "more than 16 bits"),
        (Image.new("I", (4, 4), -1), "more than 16 bits"),
        (Image.new("La", (4, 4)), "mode La can't be converted"),
    ],
)
def test_what_is_no_image(upscaler, wrong, words):
    with pytest.raises(UserError, match=words) as caught:
        upscaler(wrong)
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


# ---------------------------------------------------------------- Pillow images


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("1", "L"),
        ("L", "L"),
        ("LA", "LA"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("P", "RGB"),
        ("PA", "RGBA"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
        ("HSV", "RGB"),
        ("RGBa", "RGBA"),
    ],
)
def test_modes(upscaler, mode, expected):
    image = Image.new("RGB", (5, 7), (200, 100, 50))
    by = {"PA": "P", "RGBa": "RGBA"}.get(mode, "RGB")  # Pillow has no direct conversion to these
    image = image.convert(by).convert(mode)
    result = upscaler(image)
    assert result.mode == expected and result.size == (20, 28)
    before, after = (np.asarray(i.convert("RGB").convert(expected), int)[0, 0] for i in (image, result))
    assert np.abs(after - before).max() <= 1


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_modes_of_16_bits(upscaler, mode):
    result = upscaler(Image.new(mode, (5, 7), 117 * 257))
    assert result.mode == "L" and result.getpixel((3, 3)) == 117


def test_a_pillow_image_gives_a_pillow_image(upscaler):
    image = Image.fromarray(COLOUR[:, :, :3])
    assert np.array_equal(np.asarray(upscaler(image)), repeated(COLOUR[:, :, :3]))
    assert np.array_equal(np.asarray(image), COLOUR[:, :, :3])


def test_palette_with_a_transparent_colour(upscaler):
    image = Image.new("P", (6, 6), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 3, 6))
    image.info["transparency"] = 0
    result = upscaler(image)
    assert result.mode == "RGBA"
    assert result.getpixel((2, 12)) == (200, 100, 50, 255) and result.getpixel((22, 12))[3] == 0


def test_exif_turns_it(upscaler, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    Image.fromarray(COLOUR[:, :, :3]).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        result = upscaler(image)
    assert np.array_equal(np.asarray(result), repeated(np.rot90(COLOUR[:, :, :3], -1)))


def test_a_damaged_file_is_pillows_own_error(upscaler, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(OSError, match="truncated"):
        upscaler(image)


# ---------------------------------------------------------------- grey and alpha


def test_grey_stays_grey_even_if_the_generator_colours():
    upscaler = tinysrgan.Upscaler(Generator(1, 4, seed=2), device="cpu")
    grey = np.random.default_rng(0).integers(0, 256, (9, 8), dtype=np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    almost = rgb.copy()
    almost[0, 0, 0] ^= 1
    coloured = upscaler(almost).astype(int)
    assert np.ptp(coloured, axis=2).max() > 10  # this generator adds colour
    result = upscaler(grey)
    assert np.abs(result - coloured.mean(axis=2)).max() < 2
    assert np.array_equal(upscaler(rgb), np.repeat(result[:, :, None], 3, axis=2))
    assert upscaler(Image.fromarray(rgb)).mode == "RGB"


def on_white(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[:, :, -1:] / 255
    return pixels[:, :, :-1] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_bicubic_and_what_is_seen_is_the_generators(upscaler, channels):
    y, x = np.mgrid[:24, :24]
    pixels = np.stack([8 * x, 8 * y, 255 - 8 * x, 128 + 5 * x], axis=2).astype(np.uint8)
    pixels = pixels[:, :, [0, 3]] if channels == 2 else pixels
    result = upscaler(pixels)
    alpha = Image.fromarray(pixels[:, :, -1]).resize((96, 96), Image.Resampling.BICUBIC)
    assert np.array_equal(result[:, :, -1], np.asarray(alpha))
    seen, expected = on_white(result), repeated(on_white(pixels))
    possible = expected >= 255 * (1 - result[:, :, -1:] / 255.0)  # no colour is darker than black
    assert possible.mean() > 0.95
    assert np.abs(seen - expected)[possible].max() <= 2


def test_hidden_colours_of_transparent_pixels_do_not_leak(upscaler):
    """A white disc on transparent black gets no dark fringe."""
    pixels = np.zeros((12, 12, 4), np.uint8)
    pixels[3:9, 3:9] = 255
    result = upscaler(pixels)
    assert (result[:, :, :3] == 255).all()
    assert result[24, 24, 3] == 255 and result[0, 0, 3] == 0


def test_opaque_alpha_changes_nothing(upscaler):
    pixels = COLOUR.copy()
    pixels[:, :, 3] = 255
    assert np.array_equal(upscaler(pixels), repeated(pixels))


# ---------------------------------------------------------------- generators


def test_numbers_that_overflow_are_no_image():
    net = Generator(1, 4, seed=0)
    net["tail"].w.value += 3e38
    with pytest.raises(UserError, match="overflow"), np.errstate(all="ignore"):
        tinysrgan.Upscaler(net, device="cpu")(COLOUR)


def test_a_gpu_that_is_not_there():
    with pytest.raises(UserError, match="--device cuda doesn't work here"):
        tinysrgan.Upscaler(repeating(), device="cuda")
