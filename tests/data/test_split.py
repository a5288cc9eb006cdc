"""The split into training and held-out images: complete, seeded, and all variants of a source on one side."""

import hashlib
import json
from pathlib import Path

import pytest

from tinysrgan.data.division import split
from tinysrgan.data.images import DataError
from tinysrgan.data.listing import find_images
from tinysrgan.data.variants import source_labels

DIGESTS = ("3f67cf2b1a0c4d95", "646bf0ce02da7302")


def test_the_split_is_complete_disjoint_and_seeded():
    paths = [Path(f"{i}.png") for i in range(300)]
    training, held_out = split(paths)
    assert len(held_out) == 99 and sorted(training + held_out) == sorted(paths)
    assert split(paths) == (training, held_out)
    assert split(paths, seed=13) != (training, held_out)
    assert len(split(paths, validation=0.1)[1]) == 30


def test_the_first_held_out_images_are_of_every_kind():
    """Validation during training uses the first few held-out images."""
    paths = [Path(f"{i:03}.png") for i in range(300)]
    first = split(paths)[1][:24]
    assert min(first) < Path("100.png") and max(first) > Path("200.png") and first != sorted(first)


@pytest.mark.parametrize(("count", "share"), [(2, 0.33), (2, 0.0), (3, 1.0), (5, 0.01), (5, 0.99)])
def test_each_side_gets_one_image_at_least(count, share):
    training, held_out = split([Path(f"{i}.png") for i in range(count)], share)
    assert training and held_out and len(training) + len(held_out) == count


def test_the_starter_set_is_divided_as_ever():
    """Published figures were measured on these 198 images, in this order."""
    folder = Path(__file__).parents[2] / "data" / "qr"
    for limit, digest in ((None, DIGESTS[0]), (120, DIGESTS[1])):
        sides = [[path.relative_to(folder).as_posix() for path in side] for side in split(find_images(folder, limit))]
        assert hashlib.sha256(json.dumps(sides).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("seed", range(8))
def test_variants_of_a_source_stay_on_one_side(seed):
    paths = [Path(f"in/photo_{i:02}_crop{j}.png") for i in range(20) for j in range(1 + i % 5)]
    training, held_out = split(paths, seed=seed)
    assert sorted(training + held_out) == sorted(paths)
    assert not {*source_labels([path.name for path in training])} & {*source_labels([path.name for path in held_out])}
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
