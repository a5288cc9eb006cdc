"""Finding, splitting, pairing, prefetching: repeatable, bounded, and nothing lost without a word."""

import hashlib
import json
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.data.augment import Augment
from tinysrgan.data.dataset import ImagePairs, find_images, prefetch, save_augmented, split
from tinysrgan.data.images import ENDINGS, DataError, area_average, read_image, to_uint8, to_unit
from tinysrgan.data.sources import sources
from tinysrgan.metrics.qr_reader import version_of

DIGESTS = ("3f67cf2b1a0c4d95", "646bf0ce02da7302")
SHIFT = Augment(rotation=0, shear=0, zoom=0, brightness=(1, 1), shift=0.5)


@pytest.fixture
def images(tmp_path):
    """Twelve small images, grey and in colour by turns, each of one average brightness of its own."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(12):  # from dark to light, but no brightness makes all of an image white
        pixels = (rng.integers(0, 60, (48, 40, 3)) + 10 * i).astype(np.uint8)
        Image.fromarray(pixels if i % 2 else pixels[:, :, 0].copy()).save(folder / f"{i:02}-v{i % 4 + 1}.png")
    return folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


# ---------------------------------------------------------------- find_images


def test_images_are_found_by_their_ending_in_all_folders(tmp_path):
    touch(tmp_path, "b.png", "a.JPG", "deep/er/c.webp", "deep/d.TIFF", "notes.txt", "x.png/e.bmp", "ü ö.jpeg", "png")
    found = names(find_images(tmp_path), tmp_path)
    assert found == ["a.JPG", "b.png", "deep/d.TIFF", "deep/er/c.webp", "x.png/e.bmp", "ü ö.jpeg"]


def test_hidden_files_are_left_out(tmp_path):
    touch(tmp_path, "a.png", "._a.png", ".thumbnails/a.png")
    assert names(find_images(tmp_path), tmp_path) == ["a.png"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "data", "a.png", "sub/b.png")
    touch(tmp_path / "elsewhere", "c.png")
    (tmp_path / "data" / "sub" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "same").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "d.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    found = ["a.png", "d.png", "more/c.png", "sub/b.png"]
    assert names(find_images(tmp_path / "data"), tmp_path / "data") == found
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert names(find_images(tmp_path / "link"), tmp_path / "link") == found


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "no images"])
def test_a_folder_without_images_is_an_error_that_names_it(kind, tmp_path):
    folder = tmp_path / "my codes"
    if kind == "file":
        folder.touch()
    elif kind != "missing":
        folder.mkdir()
    if kind == "no images":
        touch(folder, "readme.txt")
    with pytest.raises(DataError, match="data/qr") as error:
        find_images(folder)
    assert str(folder) in str(error.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path):
    touch(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(DataError, match=r"closed can't be listed: Permission denied"):
            find_images(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_limit_takes_of_every_kind_and_always_the_same(tmp_path):
    touch(tmp_path, *(f"{i}-v{i % 4 + 1}.png" for i in range(1000, 1200)), *(f"mixed-{i}.png" for i in range(200)))
    everything = find_images(tmp_path)
    some = find_images(tmp_path, limit=40)
    assert len(some) == 40 and set(some) < set(everything) and some == sorted(some)
    assert find_images(tmp_path, limit=40) == some
    assert 8 < sum("mixed" in path.name for path in some) < 32
    assert {version_of(path) for path in some} == {1, 2, 3, 4, None}
    assert set(find_images(tmp_path, limit=20)) < set(some)
    assert find_images(tmp_path, limit=1000) == everything


def test_files_of_other_kinds_are_counted(tmp_path):
    touch(tmp_path, "a.png", "b.xcf", "deep/c.XCF", "d.txt", "deep/README", ".hidden.txt", ".git/e.txt")
    told: list[str] = []
    assert names(find_images(tmp_path, tell=told.append), tmp_path) == ["a.png"]
    assert told[0].startswith(f"Left out in {tmp_path}: 2 .xcf, 1 without an ending, 1 .txt.")
    touch(tmp_path, *(f"{i}.kind{i % 20}" for i in range(60)))
    find_images(tmp_path, tell=told.append)
    assert "3 .kind0" in told[1] and " of other kinds" in told[1] and len(told[1]) < 300


@pytest.mark.skipif(".heic" in ENDINGS, reason="pillow-heif is installed")
def test_what_helps_with_heic_is_said(tmp_path):
    touch(tmp_path, "a.png", "b.HEIC")
    told: list[str] = []
    find_images(tmp_path, tell=told.append)
    helps = "HEIC is read after `pip install pillow-heif`, or convert them to JPEG or PNG"
    assert told == [f"Left out in {tmp_path}: 1 .heic; {helps}."]
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "b.HEIC")
    assert str(error.value).endswith(f"; {helps}")


def test_a_folder_without_files_of_other_kinds_says_nothing(tmp_path):
    touch(tmp_path, *(f"a{ending}" for ending in ENDINGS))
    assert len(find_images(tmp_path, tell=pytest.fail)) == len(ENDINGS)


def test_a_folder_of_nothing_but_other_kinds_says_which(tmp_path):
    touch(tmp_path, "a.txt", "b.txt")
    with pytest.raises(DataError, match=r"holds no images .* Left out in .*: 2 \.txt\.$"):
        find_images(tmp_path)


# ---------------------------------------------------------------- split


def test_the_split_is_complete_disjoint_and_seeded():
    paths = [Path(f"{i}.png") for i in range(300)]
    training, held_out = split(paths)
    assert len(held_out) == 99 and sorted(training + held_out) == sorted(paths)
    assert split(paths) == (training, held_out)
    assert split(paths, seed=13) != (training, held_out)
    assert len(split(paths, validation=0.1)[1]) == 30


def test_the_first_held_out_images_are_of_every_kind():
    """Validation looks at the first few of them while training."""
    paths = [Path(f"{i:03}.png") for i in range(300)]
    first = split(paths)[1][:24]
    assert min(first) < Path("100.png") and max(first) > Path("200.png") and first != sorted(first)


@pytest.mark.parametrize(("count", "share"), [(2, 0.33), (2, 0.0), (3, 1.0), (5, 0.01), (5, 0.99)])
def test_each_side_gets_one_image_at_least(count, share):
    training, held_out = split([Path(f"{i}.png") for i in range(count)], share)
    assert training and held_out and len(training) + len(held_out) == count


def test_the_starter_set_is_divided_as_ever():
    """Published figures are of these 198 images, in this order."""
    folder = Path(__file__).parents[2] / "data" / "qr"
    for limit, digest in ((None, DIGESTS[0]), (120, DIGESTS[1])):
        sides = [names(side, folder) for side in split(find_images(folder, limit))]
        assert hashlib.sha256(json.dumps(sides).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("seed", range(8))
def test_variants_of_a_source_stay_on_one_side(seed):
    paths = [Path(f"in/photo_{i:02}_crop{j}.png") for i in range(20) for j in range(1 + i % 5)]
    training, held_out = split(paths, seed=seed)
    assert sorted(training + held_out) == sorted(paths)
    assert not {*sources([path.name for path in training])} & {*sources([path.name for path in held_out])}
    assert 0.25 < len(held_out) / len(paths) < 0.34


@pytest.mark.parametrize("sizes", [[2, 2], [9, 1], [1, 9], [5, 4, 3], [100, 1, 1]])
def test_few_sources_of_many_variants_are_divided_too(sizes):
    paths = [Path(f"{i}_crop{j}.png") for i, size in enumerate(sizes) for j in range(size)]
    training, held_out = split(paths)
    assert training and held_out and not {path.name[0] for path in training} & {path.name[0] for path in held_out}
    assert len(held_out) <= max(min(sizes), 0.34 * len(paths))


def test_variants_of_one_source_alone_are_divided_like_others():
    paths = [Path(f"a_crop{i}.png") for i in range(9)]
    assert split(paths) == split(paths, labels=range(9))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_cannot_be_split(count):
    with pytest.raises(DataError, match="at least 2"):
        split([Path("a.png")] * count)


# ---------------------------------------------------------------- pairs


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
    with pytest.raises(DataError, match="multiple of the scale"):  # --hr-size may ask for them
        ImagePairs(find_images(images), hr_size, scale)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="no images"):
        ImagePairs([])


@pytest.mark.parametrize("augment", [None, Augment(), Augment(blur=1, noise=9)])
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


@pytest.mark.parametrize("augment", [Augment(noise=5), SHIFT, None])
def test_a_batch_depends_on_nothing_but_seed_and_step(augment, images):
    """Out of order, twice, with a cache that holds nothing: what a resumed run sees is what it would have seen."""
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
    touch(tmp_path, *(f"{i}.png" for i in range(5)))
    pairs = ImagePairs(find_images(tmp_path))
    with pytest.raises(DataError, match="None of the 5 images"):
        pairs.batch(0, 2)
    assert len(pairs.skipped) == 5


def test_the_cache_never_exceeds_its_bytes(images):
    paths = find_images(images)
    wide = images / "wide.png"
    Image.new("L", (3000, 16)).save(wide)
    limit = 20_000  # two images in colour, or ten grey ones
    pairs = ImagePairs([*paths, wide], 32, 4, Augment(), cache_bytes=limit)
    rng = np.random.default_rng(0)
    for index in rng.integers(0, 13, 200):
        pairs.pair(int(index), 0)
        held = [source.image for source in pairs.sources.kept.values()]
        used = sum(image.width * image.height * (1 if image.mode == "L" else 4) for image in held)
        assert used == pairs.sources.bytes <= limit
    assert held


def test_the_cache_keeps_what_was_used_last(images):
    paths = find_images(images)[::2]  # the grey ones, 1920 bytes each
    pairs = ImagePairs(paths, 32, 4, cache_bytes=2 * 1920)
    for index in (0, 1, 0, 2):
        pairs.pair(index, None)
    assert list(pairs.sources.kept) == [paths[0], paths[2]]
    paths[0].unlink()
    pairs.pair(0, None)
    with pytest.raises(DataError):
        ImagePairs(paths, 32, 4).pair(0, None)


# ---------------------------------------------------------------- the article's augmented folder


def test_augmented_variants_are_saved_beside_nothing_else(images, tmp_path):
    (images / "bad.png").write_text("not an image")
    paths = find_images(images)
    pairs = ImagePairs(paths, 32, 4, Augment(), seed=1)
    saved = save_augmented(pairs, tmp_path / "new" / "variants", variants=3)
    assert len(saved) == 36 and sorted(saved) == find_images(tmp_path / "new")
    assert [path.name for path in pairs.skipped] == ["bad.png"]
    assert saved[3].name == "00001-00-01-v2.png" and version_of(saved[3]) == 2
    pictures = [np.asarray(read_image(path)) for path in saved]
    assert {picture.shape for picture in pictures} == {(96, 96, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 36
    save_augmented(ImagePairs(paths, 32, 4, Augment(), seed=1), tmp_path / "again", variants=3)
    assert [path.read_bytes() for path in find_images(tmp_path / "again")] == [path.read_bytes() for path in saved]


def test_each_image_is_varied_in_ways_of_its_own(images, tmp_path):
    same = [find_images(images)[1]] * 4
    saved = save_augmented(ImagePairs(same, 32, 4, Augment()), tmp_path / "new", variants=2)
    assert len({path.read_bytes() for path in saved}) == 8


def test_augmented_variants_overwrite_nothing(images, tmp_path):
    before = {path: path.read_bytes() for path in find_images(images)}
    with pytest.raises(DataError, match="isn't empty"):
        save_augmented(ImagePairs(list(before), 32, 4, Augment()), images)
    with pytest.raises(ValueError, match="Augment"):
        save_augmented(ImagePairs(list(before), 32, 4), tmp_path / "new")
    assert {path: path.read_bytes() for path in find_images(images)} == before
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- prefetch


def prefetch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_prefetch_keeps_the_order_whatever_is_ready_first():
    second_done = threading.Event()

    def make(step: int) -> int:
        if step == 0:
            assert second_done.wait(20)
        if step == 1:
            second_done.set()
        return step * step

    assert list(prefetch(make, range(50), workers=2)) == [step * step for step in range(50)]
    assert not prefetch_threads()


def test_prefetch_works_ahead_but_not_far():
    made = []
    fifth = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 4:
            fifth.set()
        return step

    steps = prefetch(make, range(1000), ahead=4)
    assert next(steps) == 0
    assert fifth.wait(20)  # nobody has asked for it yet
    steps.close()
    assert max(made) == 4
    assert not prefetch_threads()


def test_an_exception_comes_in_its_turn_and_ends_the_threads():
    def make(step: int) -> int:
        if step == 3:
            raise DataError("step 3")
        return step

    seen = []
    with pytest.raises(DataError, match="step 3"):
        for step in prefetch(make, range(100), workers=3):
            seen.append(step)
    assert seen == [0, 1, 2]
    assert not prefetch_threads()


@pytest.mark.parametrize("stop", [StopIteration, KeyboardInterrupt])
def test_stopping_half_way_leaves_no_threads(stop):
    with pytest.raises(stop):
        for step in prefetch(lambda step: step, range(10**9), workers=3):
            if step == 5:
                assert prefetch_threads()
                raise stop
    assert not prefetch_threads()


def test_prefetch_of_nothing():
    assert list(prefetch(lambda step: step, range(0))) == []
    assert list(prefetch(lambda step: step, range(2), ahead=0)) == [0, 1]


def test_the_starter_set_trains_with_real_threads():
    """The whole chain, on real codes: all batches of an epoch, prefetched, equal those made one by one."""
    training, _ = split(find_images(Path(__file__).parents[2] / "data" / "qr", limit=60))
    pairs, alone = (ImagePairs(training, 64, 4, SHIFT, seed=3) for _ in range(2))
    for step, batch in enumerate(prefetch(lambda step: pairs.batch(step, 8), range(6), workers=2)):
        assert_same(batch, alone.batch(step, 8))
    assert not pairs.skipped
    assert to_unit(pairs.pair(0, 0)[1]).max() == 1


# ---------------------------------------------------------------- size, and company


def test_a_photograph_of_any_size_keeps_its_shape(tmp_path):
    """1280 isn't a multiple of the 98 pixels that are kept of it."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1280, 1280), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photo.png")
    lr, hr = ImagePairs([tmp_path / "photo.png"], 32, 4).pair(0, None)
    assert np.abs(lr - np.asarray(image, float).reshape(8, 160, 8, 160, 3).mean((1, 3))).max() <= 1.5
    assert np.abs(hr - np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), float)).max() <= 2.5


def test_threads_that_share_the_pairs_get_what_one_alone_gets(images):
    """Unreadable files come up in another order for them, and the cache is never right."""
    for i in (1, 4, 5, 9):
        (images / f"{i:02}-v{i % 4 + 1}.png").write_bytes(b"broken")
    paths = find_images(images)
    alone, shared = (
        ImagePairs(paths, 32, 4, Augment(noise=5)),
        ImagePairs(paths, 32, 4, Augment(noise=5), cache_bytes=8000),
    )
    order = [int(step) for step in np.random.default_rng(0).permutation(40)]
    for step, batch in zip(order, prefetch(lambda step: shared.batch(step, 3), order, workers=4), strict=True):
        assert_same(batch, alone.batch(step, 3))
    assert shared.skipped == alone.skipped and len(alone.skipped) == 4


def test_a_file_that_was_skipped_is_not_tried_again(images):
    """Somebody mends it in the middle of a run: the rest of the run stays as it was."""
    (images / "05-v2.png").write_bytes(b"broken")
    paths = find_images(images)
    pairs, mended = ImagePairs(paths, 32, 4, cache_bytes=0), ImagePairs(paths, 32, 4, cache_bytes=0)
    expected = [pairs.batch(step, 4) for step in range(6)]
    assert_same(mended.batch(0, 12), pairs.batch(0, 12))
    Image.new("RGB", (48, 40)).save(images / "05-v2.png")
    for step, batch in enumerate(expected):
        assert_same(mended.batch(step, 4), batch)


def test_twenty_thousand_images_take_no_more_memory_than_a_few(tmp_path):
    """Hard links to real codes, which decoded would take 3 GB. The bound is of a few batches and of the cache."""
    codes = sorted((Path(__file__).parents[2] / "data" / "qr").glob("*.png"))[:8]
    for i, code in enumerate(codes):
        (tmp_path / f"{i}.png").write_bytes(code.read_bytes())
    for i in range(20_000):
        os.link(tmp_path / f"{i % 8}.png", tmp_path / f"{i:05}-copy.png")
    try:
        training, held_out = split(find_images(tmp_path))
        assert len(training) + len(held_out) == 20_008
        tracemalloc.start()
        pairs = ImagePairs(training, 64, 4, Augment(), cache_bytes=1_000_000)
        for step in range(20):
            pairs.batch(step, 8)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        assert 500_000 < pairs.sources.bytes <= 1_000_000
    finally:
        tracemalloc.stop()
        for path in tmp_path.glob("*-copy.png"):  # rather than leave them to pytest, which keeps folders for days
            path.unlink()
