"""Photographs of codes: each stage follows its range, HR images scan, and a draw depends on its seed only."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("qrcode")
pytest.importorskip("zxingcpp")

sys.path.insert(0, str(Path(__file__).parents[2]))  # the benchmark is not part of the installed package

from benchmarks.qr.samples import STILL, photographed
from tinysrgan.core.errors import UserError
from tinysrgan.data.augment import HARD
from tinysrgan.data.camera import FILTERS, FINE, MODULE, Camera
from tinysrgan.data.qr_codes import capacity, is_reserved, modules
from tinysrgan.data.synthetic import SyntheticCodes
from tinysrgan.metrics.qr_reader import read_code
from tinysrgan.training.config import Options, augmentation

SYMBOL = modules("CAMERA", 1, "L", mask=3)
SIDE = len(SYMBOL)
WHOLE = replace(Camera(), large_share=0, off_centre=0.3)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def shot(camera: Camera, seed: int = 0, lr_size: int = 40, scale: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return camera.photograph(SYMBOL, lr_size, scale, rng(seed))


# ---------------------------------------------------------------- a whole photograph


def test_a_draw_depends_on_its_seed_alone():
    stream = SyntheticCodes(seed=1, camera=Camera(), camera_share=1)
    pairs = {draw: stream.pair(draw) for draw in range(12)}
    again = SyntheticCodes(seed=1, camera=Camera(), camera_share=1)
    for draw in reversed(range(12)):
        for one, other in zip(again.pair(draw), pairs[draw], strict=True):
            np.testing.assert_array_equal(one, other)
    other_seed = SyntheticCodes(seed=2, camera=Camera(), camera_share=1)
    assert not any(np.array_equal(other_seed.pair(draw)[0], pairs[draw][0]) for draw in range(12))


@pytest.mark.parametrize("lr_size, scale", [(32, 4), (24, 2), (16, 8)])
def test_sizes_types_and_levels(lr_size, scale):
    for seed in range(10):
        lr, hr = shot(Camera(), seed, lr_size, scale)
        assert (lr.shape, hr.shape) == ((lr_size,) * 2, (scale * lr_size,) * 2)
        assert lr.dtype == hr.dtype == np.uint8
        assert len(np.unique(lr)) > 8


def test_a_camera_without_effects_shows_the_code_as_it_is():
    for seed in range(5):
        lr, hr = shot(STILL, seed)
        assert read_code(hr) == "CAMERA"
        assert np.abs(lr - hr.reshape(40, 4, 40, 4).mean(axis=(1, 3))).max() <= 1


def test_hr_shows_the_code_as_it_was_before_printing():
    ink = SYMBOL.sum() * (1.1 * 4) ** 2  # pixels, at 1.1 LR pixels per module
    for change in ({"ink": (0.25, 0.25), "ink_share": 1}, {"dots_share": 1}, {"logo_share": 1, "noise": (8, 8)}):
        _, hr = shot(replace(STILL, **change))
        assert (255.0 - hr).sum() / 255 == pytest.approx(ink, rel=0.01)


def test_originals_scan_in_versions_1_to_6():
    """Readers fail on some strongly curved codes, even on HR; they read nearly all others."""
    for camera, least in ((replace(WHOLE, bend_share=0), 48), (WHOLE, 40)):
        codes = [photographed(camera, 1 + i % 6, i, rng(i)) for i in range(50)]
        assert {code.version for code in codes} == {1, 2, 3, 4, 5, 6}
        assert sum(read_code(code.hr) == code.text for code in codes) >= least


def test_no_text_of_the_benchmark_is_photographed():
    small = replace(WHOLE, pitch=(0.5, 0.55), bend_share=0)  # so that the whole code fits the frame
    stream = SyntheticCodes(seed=7, camera=small, camera_share=1)
    found = [read_code(stream.pair(draw)[1]) for draw in range(40)]
    texts = [text for text in found if text is not None]
    assert len(texts) > 35 and not any(map(is_reserved, texts))
    assert max(map(len, texts)) > capacity(4, "L", "address")  # larger codes too


def test_the_share_of_photographs():
    plain = SyntheticCodes(seed=4)
    assert all(np.array_equal(SyntheticCodes(seed=4, camera=None).pair(i)[0], plain.pair(i)[0]) for i in range(5))
    half = SyntheticCodes(seed=4, camera=STILL, camera_share=0.5)
    still = SyntheticCodes(seed=4, camera=STILL, camera_share=1)
    photographs = sum(np.array_equal(half.pair(i)[1], still.pair(i)[1]) for i in range(60))
    assert 18 <= photographs <= 42


def test_a_mirrored_code_is_no_code():
    with pytest.raises(UserError, match="leave --flip out"):
        augmentation(Options(augment="camera", flip=True))
    assert augmentation(Options(augment="camera")) == HARD


# ---------------------------------------------------------------- printed


@pytest.mark.parametrize("spread", [-0.2, -0.1, 0.1, 0.2])
def test_ink_widens_an_isolated_module_on_both_sides(spread):
    symbol = np.zeros((5, 5), np.uint8)
    symbol[2, 2] = 1
    camera = replace(STILL, ink=(spread, spread), ink_share=1, rounding=(0.15, 0.15))
    plane = camera.printed(symbol, rng(0))
    assert plane.shape == (5 * MODULE, 5 * MODULE)
    middle = plane[5 * MODULE // 2]
    assert middle.sum() == pytest.approx((1 + 2 * spread) * MODULE, abs=1)
    assert np.array_equal(plane, plane.T)


def test_dots_leave_the_finders_whole():
    camera = replace(STILL, dots_share=1, dots=(0.4, 0.4))
    plane, squares = camera.printed(SYMBOL, rng(0)), STILL.printed(SYMBOL, rng(0))
    assert np.array_equal(squares, np.kron(SYMBOL, np.ones((MODULE, MODULE))))
    assert np.array_equal(plane[: 7 * MODULE, : 7 * MODULE], squares[: 7 * MODULE, : 7 * MODULE])
    data = (slice(8 * MODULE, None), slice(8 * MODULE, None))
    assert plane[data].sum() / squares[data].sum() == pytest.approx(np.pi * 0.4**2, rel=0.05)


def test_a_logo_covers_the_middle():
    plane = replace(STILL, logo_share=1, logo=(0.1, 0.1)).printed(SYMBOL, rng(0))
    changed = np.argwhere(plane != STILL.printed(SYMBOL, rng(0)))
    middle, half = len(plane) / 2, 0.1 * len(plane)
    assert np.abs(changed + 0.5 - middle).max() <= half
    logo = plane[int(middle - half) + 1 : int(middle + half) - 1, int(middle)]
    assert len(np.unique(logo)) == 1 and 0 < logo[0] < 1


# ---------------------------------------------------------------- pose


@pytest.mark.parametrize("pitch", [0.9, 1.25, 1.6])
def test_every_module_is_where_the_pitch_says(pitch):
    camera = replace(STILL, pitch=(pitch, pitch))
    for seed in range(4):
        hr = shot(camera, seed)[1]
        top, left = (np.flatnonzero((hr < 255).any(axis=axis))[0] for axis in (1, 0))
        # The first pixel may be partly dark.
        top += hr[top].min() / 255
        left += hr[:, left].min() / 255
        centres = (np.arange(SIDE) + 0.5) * pitch * 4
        rows, columns = (top + centres).astype(int), (left + centres).astype(int)
        np.testing.assert_array_equal(hr[np.ix_(rows, columns)] < 128, SYMBOL == 1)


def test_samples_are_evenly_spaced_and_the_code_is_in_the_middle():
    u, v = replace(STILL, off_centre=0).pose(SIDE, 1.25, 40, rng(3))
    np.testing.assert_allclose(np.diff(u, axis=1), 1 / (FINE * 1.25), rtol=1e-3)
    np.testing.assert_allclose(np.diff(v, axis=0), 1 / (FINE * 1.25), rtol=1e-3)
    assert abs(u.mean() - SIDE / 2) <= 1 / 1.25 + 1e-3 and abs(v.mean() - SIDE / 2) <= 1 / 1.25 + 1e-3


@pytest.mark.parametrize("angle", [-40.0, 15.0])
def test_rotation_is_in_degrees(angle):
    u, v = replace(STILL, rotation=(angle, angle)).pose(SIDE, 1.25, 40, rng(0))
    assert np.degrees(np.arctan2(u[1, 0] - u[0, 0], u[0, 1] - u[0, 0])) == pytest.approx(angle, abs=0.1)
    assert np.degrees(np.arctan2(v[0, 0] - v[0, 1], v[1, 0] - v[0, 0])) == pytest.approx(angle, abs=0.1)


def test_quarter_turns_are_all_but_none():
    turned = replace(STILL, quarter_turn_share=1)
    steps = [turned.pose(SIDE, 1.25, 16, rng(seed)) for seed in range(12)]
    found = {round(np.degrees(np.arctan2(u[1, 0] - u[0, 0], u[0, 1] - u[0, 0]))) % 360 for u, _ in steps}
    assert found == {90, 180, 270}


@pytest.mark.parametrize("tilt", [20.0, 40.0])
def test_a_tilted_plane_is_seen_in_perspective(tilt):
    """A pinhole at distance D scales an area at depth X sin(tilt) by pitch^2 cos(tilt) / (1 + X sin(tilt) / D)^3."""
    pitch = 1.25
    u, v = replace(STILL, tilt=(tilt, tilt), tilt_share=1).pose(SIDE, pitch, 40, rng(2))
    u, v = u.astype(float)[::8, ::8], v.astype(float)[::8, ::8]  # one point per pixel
    (du_dy, du_dx), (dv_dy, dv_dx) = np.gradient(u), np.gradient(v)
    inner = (slice(1, -1), slice(1, -1))
    area = 1 / (du_dx * dv_dy - du_dy * dv_dx)[inner]
    depth = np.cbrt(pitch**2 * np.cos(np.radians(tilt)) / area)
    u, v = u[inner] - SIDE / 2, v[inner] - SIDE / 2
    near = np.hypot(u, v) < SIDE / 2
    (a, b, c), *_ = np.linalg.lstsq(np.stack([u[near], v[near], np.ones(near.sum())], axis=1), depth[near], rcond=None)
    assert c == pytest.approx(1, abs=0.005)
    assert np.hypot(a, b) == pytest.approx(np.sin(np.radians(tilt)) / (3 * SIDE), rel=0.03)


def test_curvature_moves_the_edge_by_the_bend():
    for seed in range(4):
        flat = STILL.pose(SIDE, 1.25, 40, rng(seed))
        bent = replace(STILL, bend=(0.5, 0.5), bend_share=1).pose(SIDE, 1.25, 40, rng(seed))
        moved = [one - other for one, other in zip(bent, flat, strict=True)]
        along = int(np.abs(moved[0]).max() > 0)  # the coordinate on which the bend depends
        assert np.abs(moved[along]).max() == 0
        expected = 0.5 * ((flat[along] - SIDE / 2) / (SIDE / 2)) ** 2
        np.testing.assert_allclose(moved[1 - along], expected, atol=1e-4)


# ---------------------------------------------------------------- scene


def test_ink_and_paper_have_their_levels():
    lr, hr = shot(replace(STILL, black=(60, 60), contrast=130, white=190))
    assert (lr.min(), lr.max()) == (60, 190) and (hr.min(), hr.max()) == (0, 255)
    clean = [shot(replace(STILL, clean_share=1), seed)[0] for seed in range(30)]
    assert all(lr.min() == 0 for lr in clean)
    white = [lr.max() for lr in clean]
    assert 178 <= min(white) < 195 and 240 < max(white) <= 255
    drawn = [shot(replace(STILL, black=(0, 120), contrast=55), seed)[0] for seed in range(30)]
    assert all(int(lr.max()) - lr.min() >= 54 for lr in drawn) and max(lr.min() for lr in drawn) > 80


def test_an_inverted_code_is_bright_on_dark_in_lr_and_hr():
    (lr, hr), (inverted_lr, inverted_hr) = shot(STILL), shot(replace(STILL, inverted_share=1))
    assert np.abs(255 - lr.astype(int) - inverted_lr).max() <= 1
    np.testing.assert_allclose(255.0 - hr, inverted_hr, atol=1)
    assert read_code(inverted_hr) == "CAMERA"


def test_clutter_begins_where_the_quiet_zone_ends():
    for share, quiet in ((0, 2), (1, 0)):
        camera = replace(STILL, around_share=1, quiet=(2, 2), no_quiet_share=share)
        u, v = np.meshgrid(*[np.linspace(-6, SIDE + 6, 400)] * 2)
        scene = camera.scene(np.full_like(u, 130), u, v, SIDE, rng(5))
        inside = (np.minimum(u, v) >= -quiet) & (np.maximum(u, v) <= SIDE + quiet)
        assert (scene[inside] == 130).all() and (scene[~inside] == 130).mean() < 0.01
        assert scene.min() >= 0 and scene.max() <= 255


# ---------------------------------------------------------------- optics


@pytest.mark.parametrize("gaussian", [0, 1])
@pytest.mark.parametrize("pitch", [0.8, 2.0])
def test_blur_has_its_sigma_in_lr_pixels_or_modules(gaussian, pitch):
    edge = np.zeros((256, 256))
    edge[:, 128:] = 255
    blurred = replace(STILL, blur=(0.5, 0.5), blur_share=1, gaussian_share=gaussian).optics(edge, pitch, rng(0))
    slope, x = np.diff(blurred[128].astype(float)), np.arange(255) - 127
    assert np.sqrt((slope * x**2).sum() / slope.sum()) == pytest.approx(0.5 * FINE * max(pitch, 1), rel=0.06)


def test_motion_spreads_a_point_along_a_line():
    point = np.zeros((96, 96))
    point[48, 48] = 255
    ways = set()
    for seed in range(8):
        moved = replace(STILL, motion=(1.5, 1.5), motion_share=1).optics(point, 1.0, rng(seed))
        places = np.argwhere(moved)
        assert moved.sum() == pytest.approx(255) and 5 <= len(places) <= 7
        assert np.hypot(*(places[-1] - places[0])) == pytest.approx(1.5 * FINE, abs=1.5)
        ways.add(tuple(places[0]))
    assert len(ways) > 4


# ---------------------------------------------------------------- sensor


def test_noise_has_its_standard_deviation():
    grey = np.full((64, 64), 128.0)
    assert (STILL.sensor(grey, rng(0)) == 128).all()
    for noise in (4, 12):
        noisy = replace(STILL, noise=(noise, noise)).sensor(grey, rng(0))
        assert noisy.std() == pytest.approx(noise, rel=0.04) and noisy.mean() == pytest.approx(128, abs=0.6)


def test_software_shrinks_with_its_own_filters():
    scene = rng(0).uniform(0, 255, (64, 64)).astype(np.float32)
    camera = replace(STILL, resampled_share=1)
    shrunk = [camera.pixels(scene, 8, rng(seed)) for seed in range(12)]
    filters = [Image.fromarray(scene).resize((8, 8), one) for one in FILTERS]
    assert {next(i for i, one in enumerate(filters) if np.array_equal(one, lr)) for lr in shrunk} == {0, 1, 2}
    np.testing.assert_allclose(STILL.pixels(scene, 8, rng(0)), scene.reshape(8, 8, 8, 8).mean(axis=(1, 3)), rtol=1e-5)


def test_light_falls_off_from_one_side_to_the_other():
    grey = np.full((32, 32), 200.0)
    for seed in range(5):
        lr = replace(STILL, falloff=(0.5, 0.5), falloff_share=1).sensor(grey, rng(seed))
        assert (lr.min(), lr.max()) == (100, 200)
        assert lr[::31, ::31].min() == 100 and lr[::31, ::31].max() == 200  # the extreme values are in the corners


def test_sharpening_makes_halos_and_leaves_plain_areas():
    edge = np.full((16, 16), 80.0)
    edge[:, 8:] = 160
    lr = replace(STILL, sharpening=(1, 1), sharpening_share=1).sensor(edge, rng(0))
    np.testing.assert_array_equal(lr[8, 5:11], [80, 80, 60, 180, 160, 160])


def test_jpeg_blocks_start_anywhere():
    """At quality 1 each 8x8 block is nearly constant, so adjacent pixels differ most at block edges."""
    image = np.add.outer(np.arange(64.0), 2 * np.arange(64.0))
    starts = set()
    for seed in range(24):
        lr = replace(STILL, jpeg=(1, 1), jpeg_share=1).sensor(image, rng(seed))
        assert lr.shape == image.shape and lr.dtype == np.uint8 and not np.array_equal(lr, np.rint(image))
        jumps = np.abs(np.diff(lr.astype(float), axis=1)).sum(axis=0)
        starts.add(int(np.argmax([jumps[start::8].sum() for start in range(8)])))
    assert len(starts) >= 6
