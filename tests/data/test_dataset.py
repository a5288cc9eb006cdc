"""Pairs and batches are repeatable and bounded in memory, and every file left out is named."""

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.data.augment import ARTICLE, Augment
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.division import split
from tinysrgan.data.images import DataError, area_average, read_image, to_uint8, to_unit
from tinysrgan.data.listing import find_images
from tinysrgan.data.prefetch import prefetch

SHIFT = Augment(shift=0.5)
NOISY = replace(ARTICLE, noise=5)


@pytest.fixture
def images(tmp_path):
    """Write twelve small images, alternately grey and in colour, each with its own average brightness."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(12):  # from dark to light; no brightness setting turns an image completely white
        pixels = (rng.integers(0, 60, (48, 40, 3)) + 10 * i).astype(np.uint8)
        Image.fromarray(pixels if i % 2 else pixels[:, :, 0].copy()).save(folder / f"{i:02}-v{i % 4 + 1}.png")
    return folder


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_hr_is_the_image_and_lr_its_average(scale, tmp_path):
    rng = np.random.default_rng(0)
    for name, pixels in (
        ("colour.png", rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)),
        ("grey.png", rng.integers(0, 256, (128, 128), dtype=np.uint8)),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
        lr, hr = ImagePairs([tmp_path / name], 128, scale).pair(0, None)
        pixels = np.asarray(read_image(tmp_path / name))
        assert lr.dtype == hr.dtype == np.uint8 and lr.shape == (128 // scale, 128 // scale, 3)
        assert np.array_equal(hr, pixels)
        average = pixels.reshape(128 // scale, scale, 128 // scale, scale, 3).mean((1, 3))
        assert np.abs(lr - average).max() <= 0.5001


def test_any_shape_is_resized_to_a_square_by_pillows_bilinear(images):
    path = find_images(images)[1]
    lr, hr = ImagePairs([path], 32, 4).pair(0, None)
    image = read_image(path)
    assert np.array_equal(hr, np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)))
    assert np.array_equal(lr, area_average(image, 8))


def test_a_large_photograph_is_averaged_first_and_looks_the_same(tmp_path):
    y, x = np.mgrid[0:576, 0:864]
    pixels = np.stack([x / 864 * 255, y / 576 * 255, 127 + 100 * np.sin(x / 60) * np.cos(y / 50)], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    pairs = ImagePairs([tmp_path / "photo.png"], 32, 4)
    lr, hr = pairs.pair(0, None)
    image = Image.fromarray(pixels)
    assert np.abs(hr - np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), float)).max() <= 2
    assert np.abs(lr - pixels.reshape(8, 72, 8, 108, 3).mean((1, 3))).max() <= 1
    assert pairs.sources.bytes == 96 * 144 * 4


@pytest.mark.parametrize(("hr_size", "scale"), [(130, 4), (127, 2), (100, 8), (8, 4), (0, 4), (32, 0)])
def test_sizes_that_do_not_fit_are_refused(hr_size, scale, images):
    with pytest.raises(DataError, match="multiple of the scale"):  # --hr-size can request such sizes
        ImagePairs(find_images(images), hr_size, scale)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="no images"):
        ImagePairs([])


@pytest.mark.parametrize("augment", [None, ARTICLE, replace(ARTICLE, blur=1, noise=9)])
def test_a_batch_is_ready_for_the_nets(augment, images):
    lr, hr = ImagePairs(find_images(images), 32, 4, augment).batch(0, 6)
    assert lr.shape == (6, 8, 8, 3) and hr.shape == (6, 32, 32, 3)
    for array in (lr, hr):
        assert array.dtype == np.float32 and array.flags.c_contiguous
        assert array.min() >= -1 and array.max() <= 1 and array.std() > 0.1


def test_every_epoch_takes_each_image_once_in_an_order_of_its_own(images):
    pairs = ImagePairs(find_images(images), 32, 4)
    brightness = [pairs.pair(i, None)[1].mean() for i in range(12)]

    def epoch(number: int) -> list[int]:
        hr = np.concatenate([pairs.batch(3 * number + i, 4)[1] for i in range(3)])
        return [int(np.argmin(np.abs(to_uint8(image).mean() - brightness))) for image in hr]

    orders = [epoch(number) for number in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] != orders[1] != orders[2] and orders[0] != list(range(12))


def assert_same(a, b) -> None:
    for left, right in zip(a, b, strict=True):
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("augment", [NOISY, SHIFT, None])
def test_a_batch_depends_on_nothing_but_seed_and_step(augment, images):
    """Batches do not depend on order, repetition or the cache, so a resumed run trains on the same batches."""
    (images / "bad.png").write_text("not an image")
    paths = find_images(images)
    pairs = ImagePairs(paths, 32, 4, augment, seed=7)
    batches = [pairs.batch(step, 5) for step in range(9)]
    for step in (8, 0, 3, 3):
        assert_same(ImagePairs(paths, 32, 4, augment, seed=7, cache_bytes=0).batch(step, 5), batches[step])
        assert_same(pairs.batch(step, 5), batches[step])
    threaded = list(
        prefetch(lambda step: ImagePairs(paths, 32, 4, augment, seed=7).batch(step, 5), range(9), workers=4)
    )
    for one, other in zip(threaded, batches, strict=True):
        assert_same(one, other)
    assert ImagePairs(paths, 32, 4, augment, seed=8).batch(0, 5)[1].tobytes() != batches[0][1].tobytes()


def test_an_image_is_varied_anew_each_time(images):
    pairs = ImagePairs(find_images(images)[:1], 32, 4, SHIFT)
    hr = [pairs.batch(step, 1)[1].tobytes() for step in range(5)]
    hr += [ImagePairs(pairs.paths, 32, 4, SHIFT, seed=1).batch(0, 1)[1].tobytes()]
    assert len(set(hr)) == 6


def test_the_unreadable_is_named_once_and_replaced_by_the_next(images):
    (images / "broken.png").write_text("not an image")
    (images / "tiny.png").write_bytes(b"")
    paths = find_images(images)
    pairs = ImagePairs(paths, 32, 4)
    order = pairs._order(0)
    hr = np.concatenate([pairs.batch(step, 7)[1] for step in range(2)])
    for position in range(14):
        on = [int(i) for i in [*order[position:], *order[:position]]]
        next_readable = next(i for i in on if paths[i].name not in ("broken.png", "tiny.png"))
        assert np.array_equal(to_uint8(hr[position]), pairs.pair(next_readable, None)[1])
    assert {path.name for path in pairs.skipped} == {"broken.png", "tiny.png"}
    assert all(str(path) in reason for path, reason in pairs.skipped.items())
    (images / "broken.png").write_bytes(paths[0].read_bytes())
    assert np.array_equal(np.concatenate([pairs.batch(step, 7)[1] for step in range(2)]), hr), "it stays out"


def test_a_folder_of_nothing_but_unreadable_files_is_an_error(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").touch()
    pairs = ImagePairs(find_images(tmp_path))
    with pytest.raises(DataError, match="None of the 5 images"):
        pairs.batch(0, 2)
    assert len(pairs.skipped) == 5


def test_the_cache_never_exceeds_its_bytes(images):
    paths = find_images(images)
    wide = images / "wide.png"
    Image.new("L", (3000, 16)).save(wide)
    limit = 20_000  # two images in colour or ten in grey
    pairs = ImagePairs([*paths, wide], 32, 4, ARTICLE, cache_bytes=limit)
    rng = np.random.default_rng(0)
    for index in rng.integers(0, 13, 200):
        pairs.pair(int(index), 0)
        held = [source.image for source in pairs.sources.kept.values()]
        used = sum(image.width * image.height * (1 if image.mode == "L" else 4) for image in held)
        assert used == pairs.sources.bytes <= limit
    assert held


def test_the_cache_keeps_what_was_used_last(images):
    paths = find_images(images)[::2]  # the grey images, 1920 bytes each
    pairs = ImagePairs(paths, 32, 4, cache_bytes=2 * 1920)
    for index in (0, 1, 0, 2):
        pairs.pair(index, None)
    assert list(pairs.sources.kept) == [paths[0], paths[2]]
    paths[0].unlink()
    pairs.pair(0, None)
    with pytest.raises(DataError):
        ImagePairs(paths, 32, 4).pair(0, None)


def test_the_starter_set_trains_with_real_threads():
    """Prefetched batches of an epoch of real codes equal batches made one by one."""
    training, _ = split(find_images(Path(__file__).parents[2] / "data" / "qr", limit=60))
    pairs, alone = (ImagePairs(training, 64, 4, SHIFT, seed=3) for _ in range(2))
    for step, batch in enumerate(prefetch(lambda step: pairs.batch(step, 8), range(6), workers=2)):
        assert_same(batch, alone.batch(step, 8))
    assert not pairs.skipped
    assert to_unit(pairs.pair(0, 0)[1]).max() == 1


# ---------------------------------------------------------------- large images, threads, many files


def test_a_photograph_of_any_size_keeps_its_shape(tmp_path):
    """A side of 1280 is not a multiple of the decoded side, 98 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1280, 1280), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photo.png")
    lr, hr = ImagePairs([tmp_path / "photo.png"], 32, 4).pair(0, None)
    assert np.abs(lr - np.asarray(image, float).reshape(8, 160, 8, 160, 3).mean((1, 3))).max() <= 1.5
    assert np.abs(hr - np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), float)).max() <= 2.5


def test_threads_that_share_the_pairs_get_what_one_alone_gets(images):
    """Threads meet unreadable files in another order, and the cache holds other images."""
    for i in (1, 4, 5, 9):
        (images / f"{i:02}-v{i % 4 + 1}.png").write_bytes(b"broken")
    paths = find_images(images)
    alone, shared = (
        ImagePairs(paths, 32, 4, NOISY),
        ImagePairs(paths, 32, 4, NOISY, cache_bytes=8000),
    )
    order = [int(step) for step in np.random.default_rng(0).permutation(40)]
    for step, batch in zip(order, prefetch(lambda step: shared.batch(step, 3), order, workers=4), strict=True):
        assert_same(batch, alone.batch(step, 3))
    assert shared.skipped == alone.skipped and len(alone.skipped) == 4


def test_a_file_that_was_skipped_is_not_tried_again(images):
    """A file repaired during a run stays skipped, so the run's batches do not change."""
    (images / "05-v2.png").write_bytes(b"broken")
    paths = find_images(images)
    pairs, mended = ImagePairs(paths, 32, 4, cache_bytes=0), ImagePairs(paths, 32, 4, cache_bytes=0)
    expected = [pairs.batch(step, 4) for step in range(6)]
    assert_same(mended.batch(0, 12), pairs.batch(0, 12))
    Image.new("RGB", (48, 40)).save(images / "05-v2.png")
    for step, batch in enumerate(expected):
        assert_same(mended.batch(step, 4), batch)


def test_twenty_thousand_images_take_no_more_memory_than_a_few(tmp_path):
    """Read hard links to real codes, which would take 3 GB decoded. The limit is a few batches and the cache."""
    codes = sorted((Path(__file__).parents[2] / "data" / "qr").glob("*.png"))[:8]
    for i, code in enumerate(codes):
        (tmp_path / f"{i}.png").write_bytes(code.read_bytes())
    for i in range(20_000):
        os.link(tmp_path / f"{i % 8}.png", tmp_path / f"{i:05}-copy.png")
    try:
        training, held_out = split(find_images(tmp_path))
        assert len(training) + len(held_out) == 20_008
        tracemalloc.start()
        pairs = ImagePairs(training, 64, 4, ARTICLE, cache_bytes=1_000_000)
        for step in range(20):
            pairs.batch(step, 8)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        assert 500_000 < pairs.sources.bytes <= 1_000_000
    finally:
        tracemalloc.stop()
        for path in tmp_path.glob("*-copy.png"):  # pytest would keep the folder for days
            path.unlink()
