"""File names decide which images are variants of one source."""

from pathlib import Path

import pytest

from tinysrgan.data.listing import find_images
from tinysrgan.data.variants import source_labels

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "variants",
    [
        ["photo_001", "photo_001_crop3", "photo_001-rot90", "photo_001 flipped", "PHOTO_001_CROP_12_40"],
        ["photo_001", "photo_001_640x480", "photo_001@2x", "photo_001_x4", "photo_001_rot-90", "photo_001-scaled"],
        ["photo_001_crop1_rot90", "photo_001_crop2_flip_h", "photo_001_aug_17"],
        ["a", "a (1)", "a (2)", "a - Copy", "a - Copy (2)", "Copy of a", "crop_a", "rot90_a"],
        ["HR/0001", "LR/0001", "X4/0001x4", "LR_bicubic/x2/0001x2"],
        ["Set5/HR/baby", "Set5/LR_bicubic/X4/babyx4"],
        ["photo1", "photo1/crop1", "photo1/crop2", "photo1/rot90"],
        ["clip/0001", "clip/0002"],
    ],
)
def test_variants_have_one_source(variants):
    names = [f"{name}.png" for name in variants] + [f"other{i}.png" for i in range(8)]
    labels = source_labels(names)
    assert len(set(labels[: len(variants)])) == 1
    assert len(set(labels)) == 9
    assert source_labels([f"some/where/{name}" for name in names]) == labels, "where the folder lies tells nothing"


@pytest.mark.parametrize(
    "names",
    [
        ["photo_001", "photo_002", "photo_1", "photo"],
        ["7209-v1", "7209-v2", "7209-v3", "mixed-0007-v3"],
        ["IMG_2031", "IMG_2032", "20240101_120000", "20240101_120001"],
        ["holiday (1)", "holiday (2)", "holiday (3)"],
        ["00012-03-a", "00013-03-a"],
        ["cats/a", "dogs/a"],
        ["crop1", "crop2", "rot90", "1", "2"],
        ["autocrop", "carrot", "export1", "box4u"],
        ["cats/1", "cats/2", "cats/3", "dogs/1", "dogs/2", "dogs/3"],
    ],
)
def test_others_are_sources_of_their_own(names):
    assert len(set(source_labels([f"{name}.png" for name in names]))) == len(names)


def test_one_picture_in_two_formats_is_one_source():
    assert len(set(source_labels(["a.png", "a.jpg", "b.png"]))) == 2


def test_a_long_series_of_numbers_is_no_source():
    names = [f"{folder}/{i}.png" for folder in "abcd" for i in range(101)]
    assert len(set(source_labels(names))) == len(names)
    assert len(set(source_labels([name for name in names if not name.endswith("/100.png")]))) == 4


def test_each_image_of_the_starter_set_is_a_source():
    names = [path.name for path in find_images(ROOT / "data" / "qr")]
    assert len(set(source_labels(names))) == len(names) == 600
