"""Synthetic codes: correct texts, exact images, repeatable draws, and no text reserved for the benchmark."""

import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("qrcode")
pytest.importorskip("zxingcpp")

from tinysrgan.core.errors import UserError
from tinysrgan.data.augment import ARTICLE, HARD, Augment
from tinysrgan.data.dataset import BatchSource
from tinysrgan.data.images import DataError, area_average, to_uint8
from tinysrgan.data.prefetch import prefetch
from tinysrgan.data.qr_codes import (
    KINDS,
    LEVELS,
    QUIET,
    VERSIONS,
    capacity,
    is_reserved,
    modules,
    payload,
    straight,
    turned,
)
from tinysrgan.data.synthetic import SHARES, SyntheticCodes
from tinysrgan.metrics.qr_reader import qr_version, read_code

PLAIN = Augment()
STILL = np.zeros(2)
ALL = list(product(VERSIONS, LEVELS, KINDS))


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def texts(stream: SyntheticCodes, draws: range) -> list[str]:
    """Return the texts of these draws. The next test checks that ``pair`` draws the same."""
    return [stream.code(np.random.default_rng([stream.seed, 3, draw]))[0] for draw in draws]


# ---------------------------------------------------------------- texts reserved for the benchmark


def test_pairs_show_the_codes_that_are_drawn():
    stream = SyntheticCodes(seed=5)
    assert [read_code(stream.pair(draw)[1]) for draw in range(60)] == texts(stream, range(60))


@pytest.mark.parametrize("seed", [0, 7])
def test_no_text_of_the_benchmark_is_ever_trained_on(seed):
    drawn = texts(SyntheticCodes(seed=seed), range(2000))
    numbers = [int(text) for text in drawn if text.isdigit() and len(text) == 4]
    assert len(numbers) > 160 and all(number % 10 != 7 and number >= 1000 for number in numbers)
    assert {number % 10 for number in numbers} == {0, 1, 2, 3, 4, 5, 6, 8, 9}
    assert not any(is_reserved(text) for text in drawn)


def test_a_reserved_text_is_one_that_ends_in_seven():
    for version, level, kind in ALL:
        assert is_reserved(payload(rng(1), version, level, kind, reserved=True))
        assert not any(is_reserved(payload(rng(seed), version, level, kind)) for seed in range(40))


# ---------------------------------------------------------------- texts and modules


@pytest.mark.parametrize("version, level, kind", ALL)
def test_a_code_says_its_text_under_every_mask(version, level, kind):
    text = payload(rng(2), version, level, kind)
    assert 0.6 <= len(text) / capacity(version, level, kind) <= 1
    for mask in (None, version, 7 - version):
        image = np.kron(1 - np.pad(modules(text, version, level, mask), QUIET), np.full((6, 6), 255, np.uint8))
        assert (read_code(image), qr_version(image)) == (text, version)


@pytest.mark.parametrize("version, level, kind", ALL)
def test_the_capacity_is_all_that_fits(version, level, kind):
    most = capacity(version, level, kind)
    letter = {"digits": "5", "capitals": "B", "address": "b"}[kind]
    assert modules(most * letter, version, level, 0).shape == (17 + 4 * version,) * 2
    with pytest.raises(ValueError, match=f"too long for a QR code of version {version}-{level}"):
        modules((most + 1) * letter, version, level, 0)


def test_without_qrcode_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "qrcode", None)
    with pytest.raises(UserError, match="pip install qrcode"):
        SyntheticCodes()
    with pytest.raises(UserError, match="pip install qrcode"):
        modules("7", 1, "L")


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("version", VERSIONS)
def test_a_straight_code_is_the_mean_over_each_pixel(version):
    symbol = modules("AB7", version, "L")
    large = np.kron(1 - np.pad(symbol, QUIET), np.full((24, 24), 255, np.uint8))
    for size in (32, 128):
        image = straight(symbol, size, STILL)
        assert np.abs(image - area_average(Image.fromarray(large), size)).max() <= 0.501


def test_a_shift_moves_down_and_right():
    symbol = modules("AB7", 2, "L")
    image = straight(symbol, 128, STILL)
    np.testing.assert_allclose(straight(symbol, 128, np.array([3, -2])), np.roll(image, (3, -2), (0, 1)))
    half = straight(symbol, 128, np.array([0.5, 0]))
    assert not np.allclose(half, image)
    np.testing.assert_allclose(half.mean(), image.mean())


def test_turned_by_nothing_is_straight_and_by_a_right_angle_clockwise():
    symbol = modules("AB7", 1, "L")
    exact = straight(symbol, 128, STILL)
    for angle, expected in ((0, exact), (90, np.rot90(exact, -1)), (-90, np.rot90(exact))):
        image = np.asarray(turned(symbol, 128, angle, STILL).reduce(4)).astype(float)
        assert np.abs(image - expected).mean() < 5  # of 255: fine pixels cut modules at quarters of a pixel
        assert np.corrcoef(image.ravel(), expected.ravel())[0, 1] > 0.995


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_turned_stays_in_the_frame_and_scans(version):
    symbol = modules("IN THE FRAME", version, "L")
    for angle, down, right in product((-40, -17, 5, 40), (-2, 2), (-2, 2)):
        image = np.asarray(turned(symbol, 128, angle, np.array([down, right])).reduce(4))
        assert read_code(image) == "IN THE FRAME"
        assert min(image[0].min(), image[-1].min(), image[:, 0].min(), image[:, -1].min()) == 255


# ---------------------------------------------------------------- the stream


def test_a_batch_depends_on_seed_and_step_alone():
    stream: BatchSource = SyntheticCodes(seed=1)
    batches = [stream.batch(step, 4) for step in (0, 1, 2)]
    again = SyntheticCodes(seed=1)
    for step in (2, 0, 1):  # in another order, as after a resume
        for one, other in zip(again.batch(step, 4), batches[step], strict=True):
            np.testing.assert_array_equal(one, other)
    assert not any(np.array_equal(one[1], other[1]) for one, other in pairwise(batches))
    assert not np.array_equal(SyntheticCodes(seed=2).batch(0, 4)[1], batches[0][1])


def test_threads_make_the_same_batches():
    stream = SyntheticCodes(seed=1)
    made = list(prefetch(lambda step: stream.batch(step, 3), range(6), workers=3))
    for step, (lr, hr) in enumerate(made):
        np.testing.assert_array_equal(lr, stream.batch(step, 3)[0])
        np.testing.assert_array_equal(hr, stream.batch(step, 3)[1])


def test_what_a_batch_is():
    stream = SyntheticCodes(hr_size=96, scale=2, seed=3)
    lr, hr = stream.batch(5, 3)
    assert (lr.shape, hr.shape, lr.dtype, hr.dtype) == ((3, 48, 48, 3), (3, 96, 96, 3), np.float32, np.float32)
    assert lr.min() >= -1 and hr.min() < -0.9 and hr.max() == 1 and lr.max() <= 1
    for i in range(3):  # the order of the codes does not depend on the batch size
        one_lr, one_hr = stream.pair(15 + i)
        np.testing.assert_array_equal(to_uint8(lr[i]), np.repeat(one_lr[:, :, None], 3, axis=2))
        np.testing.assert_array_equal(to_uint8(hr[i]), np.repeat(one_hr[:, :, None], 3, axis=2))
    assert len(stream) == 10_000 and stream.skipped == {}


def test_plain_pairs_are_upright_and_shrunk_by_area():
    stream = SyntheticCodes(augment=None, seed=4)
    for draw in range(12):
        lr, hr = stream.pair(draw)
        np.testing.assert_array_equal(lr, area_average(Image.fromarray(hr), 32))
        finder = hr[: len(hr) // 2][(hr[: len(hr) // 2] < 128).any(axis=1)]
        assert (finder[0] < 128).sum() > 2 * 128 * 7 / 41 - 4  # two finders begin in the first row


def test_the_degradations_are_drawn_from_their_ranges():
    def changed(**more) -> list[np.ndarray]:
        stream = SyntheticCodes(augment=Augment(**more), seed=6)
        return [stream.pair(draw)[0].astype(float) for draw in range(24)]

    white = np.array([lr[0, 0] for lr in changed(gain=(0.7, 1))])
    assert 178 <= white.min() < 195 and 240 < white.max() <= 255
    noise = np.array([lr[:2].std() for lr in changed(noise=6, gain=(0.7, 0.7))])
    assert noise.min() < 1.5 and 4 < noise.max() < 7.5
    plain, blurred = changed(), changed(blur=0.7)
    contrast = np.array([b.std() / a.std() for a, b in zip(plain, blurred, strict=True)])
    assert contrast.min() < 0.75 and 0.97 < contrast.max() < 1.01


def test_codes_are_shifted_by_up_to_half_an_lr_pixel():
    stream = SyntheticCodes(augment=Augment(shift=0.5), seed=2)
    shifts = []
    for draw in range(60):
        dark = stream.pair(draw)[1] < 128
        modules_across = 17 + 4 * qr_version(np.where(dark, 0, 255).astype(np.uint8)) + 2 * QUIET
        first = [np.flatnonzero(dark.any(axis=axis))[0] for axis in (0, 1)]
        shifts.append(np.array(first) - QUIET * 128 / modules_across)
    assert np.min(shifts) == pytest.approx(-2, abs=0.6) and np.max(shifts) == pytest.approx(2, abs=0.6)


def test_seven_in_ten_of_the_hard_codes_are_turned():
    stream = SyntheticCodes(seed=8)
    upright = 0
    for draw in range(200):
        hr = stream.pair(draw)[1]
        rows = np.flatnonzero((hr < 64).any(axis=1))
        upright += int((hr[rows[0] + 1] < 64).sum() > 30)  # two finders side by side start with long dark runs
    assert 40 <= upright <= 80
    assert HARD.rotation == 40 and HARD.upright == 0.3


def test_the_harder_versions_come_more_often():
    stream = SyntheticCodes(augment=PLAIN, seed=9)
    counts = np.zeros(5, int)
    for draw in range(400):
        counts[(len(stream.code(rng(draw))[1]) - 17) // 4] += 1
    assert counts[0] == 0 and np.abs(counts[1:] / 400 - SHARES).max() < 0.07


def test_what_would_spoil_codes_is_refused():
    for augment in (ARTICLE, Augment(flip=True), Augment(zoom=0.1), Augment(shear=1), Augment(brightness=(0.5, 1))):
        with pytest.raises(DataError, match="--augment hard"):
            SyntheticCodes(augment=augment)
    with pytest.raises(DataError, match="100, must be a multiple of the scale, 8"):
        SyntheticCodes(hr_size=100, scale=8)


def test_the_starter_set_has_no_number_of_the_benchmark():
    numbers = [path.name[:4] for path in (Path(__file__).parents[2] / "data" / "qr").glob("[0-9]*-v?.png")]
    assert len(numbers) > 200 and not any(is_reserved(number) for number in numbers)
