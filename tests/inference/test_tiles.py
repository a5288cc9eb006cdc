"""Tiles give the values of the whole image, with margins no wider than needed and within the memory limit."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from tinysrgan.data.images import to_unit
from tinysrgan.inference import tiles
from tinysrgan.inference.fuse import FusedConv, FusedGenerator, fuse
from tinysrgan.inference.tiles import Box, Half, Piece, largest, reach, upscale_in_tiles
from tinysrgan.layers import Conv2D
from tinysrgan.models import Generator
from tinysrgan.ops.parallel import single_threaded_blas

CONFIGS = [
    {},
    {"blocks": 3},
    {"scale": 2},
    {"scale": 8},
    {"upscale": "nearest"},
    {"scale": 8, "upscale": "nearest"},
    {"output": "tanh"},
]
configs = pytest.mark.parametrize("config", CONFIGS, ids=str)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """For tiles this small, a second thread would cost more time than it saves."""
    monkeypatch.setenv("TINYSRGAN_THREADS", "1")
    with single_threaded_blas():
        yield


def far_sighted(**config) -> FusedGenerator:
    """Return a generator whose filters are zero except at their corners, and whose batch-norms do not map 0 to 0.

    In a usual net, rounding hides the contribution from the edge of the receptive field. Here it is half of the
    result.
    """
    net = Generator(**{"blocks": 1, "filters": 2, "seed": 0} | config).eval()
    rng = np.random.default_rng(0)
    for tensor in net.tensors().values():
        tensor.value += 0.2 * rng.random(tensor.value.shape, np.float32)
    for layer in net.layers():
        if isinstance(layer, Conv2D):
            corners = np.zeros_like(layer.w.value)
            corners[:: len(corners) - 1, :: len(corners) - 1] = 1 / (corners.shape[2] * 2)
            layer.w.value *= 0
            layer.w.value += corners * rng.uniform(0.5, 1, corners.shape).astype(np.float32)
    return fuse(net)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)


def error_of_tiles(net: FusedGenerator, pixels: np.ndarray, memory: int) -> tuple[float, int]:
    """Return the largest error relative to the whole image's largest value, and the number of tiles."""
    whole = net.forward(to_unit(pixels)[None])[0]
    put_together = np.full_like(whole, np.nan)
    scale, count = net.scale, 0
    for box, y in upscale_in_tiles(net, pixels, memory=memory):
        place = put_together[scale * box.top : scale * box.bottom, scale * box.left : scale * box.right]
        assert y.shape == place.shape and y.dtype == np.float32
        assert np.isnan(place).all(), "two tiles overlap"
        place[...] = y
        count += 1
    assert not np.isnan(put_together).any(), "the tiles leave something out"
    return float(np.abs(put_together - whole).max() / np.abs(whole).max()), count


@configs
def test_tiles_give_what_the_whole_image_gives(config):
    error, count = error_of_tiles(far_sighted(**config), noise(29, 23), memory=20_000)
    assert error < 1e-5 and count > 3


@pytest.mark.parametrize("size", [(64, 33), (17, 80), (1, 41), (2, 2), (1, 1)], ids=str)
def test_whatever_the_size(size):
    assert error_of_tiles(far_sighted(), noise(*size), memory=30_000)[0] < 1e-5


@pytest.mark.parametrize("memory", [1, 40_000, 200_000, 10_000_000])
def test_whatever_the_memory(memory):
    assert error_of_tiles(far_sighted(), noise(33, 29), memory)[0] < 1e-5


def test_a_real_net_wide_enough_for_winograd():
    net = fuse(Generator(2, 32, seed=3))
    error, count = error_of_tiles(net, noise(75, 90), memory=6_000_000)
    assert error < 1e-4 and count > 9


@configs
def test_a_margin_too_narrow_by_one_would_show(config, monkeypatch):
    """A margin one pixel too narrow must be detected, in the first half of the net and in the second."""
    monkeypatch.setattr(Box, "shrunk", lambda self, margin, limits: self)  # keep the invalid border
    net = far_sighted(**config)
    assert error_of_tiles(net, noise(29, 23), memory=20_000)[0] < 1e-5
    layers = list(net.chain.values())
    for half in (layers[:2], layers[2:]):
        monkeypatch.setattr(tiles, "reach", lambda layers, half=half: reach(layers) - (list(layers) == half))
        assert error_of_tiles(net, noise(29, 23), memory=20_000)[0] > 1e-4


def test_pieces_drop_what_they_cannot_know():
    """Each layer drops the pixels that depend on pixels outside the tile, except at the image's border."""
    net = fuse(Generator(1, 4, seed=0))
    image, box = Box(0, 40, 0, 30), Box(0, 20, 5, 25)
    x = np.zeros((1, 20, 20, 3), np.float32)
    seen = [Piece(x, box, image)]
    for layer in net.chain.values():
        seen.append(seen[-1].through(layer))
        assert seen[-1].x.shape[1:3] == (seen[-1].box.bottom - seen[-1].box.top, seen[-1].box.right - seen[-1].box.left)
    head, body, upscale = (piece.box for piece in seen[1:])
    assert head == Box(0, 16, 9, 21)  # 9x9
    assert body == Box(0, 13, 12, 18)  # three 3x3
    assert upscale == Box(0, 42, 58, 62)  # 3x3, then 3x3 and 5x5 at twice the resolution; coordinates are doubled


@configs
def test_reach_is_how_far_a_pixel_is_felt(config):
    """A change of one pixel changes the result up to the reach and no further."""
    net = far_sighted(**config).astype(np.float64)
    expected = reach([net])
    middle, size = expected + 3, 2 * expected + 7
    x = np.random.default_rng(2).uniform(-1, 1, (1, size, size, 3))
    before = net.forward(x)
    x[0, middle, middle] += 1
    changed = (net.forward(x) != before)[0].any(axis=2)
    for axis in (0, 1):
        felt = np.flatnonzero(changed.any(axis=axis)) // net.scale - middle
        assert (felt.min(), felt.max()) == (-expected, expected)


def test_reach_of_the_papers_generator():
    """Compare with the sum over the paper's layers.

    One 9x9 and 33 3x3 convolutions at the image's resolution reach 4 + 33 pixels. The rest, at two and four times
    the resolution, reach 1 + 1/2 + 4/4, rounded up to 3.
    """
    layers = list(fuse(Generator()).chain.values())
    assert reach(layers[:2]) == 37
    assert reach(layers[2:]) == 3
    assert reach(layers) == 40


@pytest.mark.parametrize(
    "config, elements", [({}, 16 * 64), ({"scale": 2}, 4 * 64), ({"upscale": "nearest"}, 4 * 256)], ids=str
)
def test_the_largest_array(config, elements):
    """The largest array is the last convolution's input. In the fused net it has half the image's resolution."""
    layers = list(fuse(Generator(**config)).chain.values())
    assert largest(layers[:2]) == 64
    assert largest(layers[2:]) == elements


def test_memory_is_bounded():
    pixels = noise(240, 240)
    peaks = {}
    for memory in (8_000_000, 10**10):
        net = fuse(Generator(1, 16, seed=0))
        tracemalloc.start()
        for _ in upscale_in_tiles(net, pixels, memory=memory):
            pass
        peaks[memory] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[10**10] > 80_000_000
    # besides the tiles' arrays: the features of a large tile and the convolutions' working memory
    assert peaks[8_000_000] < 60_000_000


def test_a_net_beyond_the_memory_still_gets_tiles_worth_their_margins():
    layers = list(fuse(Generator(4, 256, seed=0)).chain.values())[:2]
    assert Half(layers, 1000).side == Half(layers, 1000).margin == 13
    assert Half([FusedConv(np.ones((1, 1, 3, 3)), np.ones(3))], 1).side == 1


def test_boxes():
    image = Box(0, 23, 0, 10)
    for side in (1, 4, 7, 23, 100):
        seen = np.zeros((23, 10, 1), int)
        for box in image.cut(side):
            part = box.of(seen, image)
            assert 0 < part.shape[0] <= side and 0 < part.shape[1] <= side
            part += 1
        assert (seen == 1).all()
    heights = {box.bottom - box.top for box in Box(5, 22, 0, 4).cut(5)}
    assert heights == {4, 5}  # similar heights, without a remainder of two rows
    assert Box(0, 4, 6, 10).grown(3, image) == Box(0, 7, 3, 10)
    x = np.arange(6 * 8).reshape(6, 8, 1)
    for origin in (Box(0, 6, 0, 8), Box(2, 8, 1, 9)):
        inner = Box(origin.top + 1, origin.bottom, origin.left, origin.right - 2)
        assert inner.of(x, origin).tolist() == x[1:, :-2].tolist()
    assert Box(1, 2, 0, 4).times(2) == Box(2, 4, 0, 8)


MEASURE = """
import numpy as np
from tinysrgan.inference.upscaler import Upscaler
from tinysrgan.models import Generator
Upscaler(Generator(seed=0), "cpu")(np.zeros((256, 256, 3), np.uint8))
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of memory is read the Linux way")
def test_the_papers_generator_takes_a_fraction_of_pytorchs_memory():
    """Peak memory of the process at 256x256; PyTorch takes 840 MB."""
    environment = {**os.environ, "TINYSRGAN_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, env=environment, check=True)
    assert 100_000 < int(done.stdout) < 0.4 * 840_000
