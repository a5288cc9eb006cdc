"""Photographs at their own size: random crops to train on, whole ones in the papers' protocol to judge by."""

import numpy as np
import pytest
from PIL import Image

from tinysrgan.data.images import DataError
from tinysrgan.data.photographs import LANES, Crops, WholePhotographs, oriented, ready_versions


@pytest.fixture
def photos(tmp_path):
    """Five images whose red channel is the column, green the row and blue the image: a crop tells where it is from."""
    rows, columns = np.mgrid[:60, :80].astype(np.uint8)
    for i in range(5):
        Image.fromarray(np.stack([columns, rows, np.full_like(rows, 20 * i)], axis=2)).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.iterdir())


def large(crops: Crops, step: int, size: int = 8) -> np.ndarray:
    return np.rint(crops.batch(step, size)[1] * 127.5 + 127.5).astype(int)


def test_crops_are_pieces_of_the_photographs_in_all_eight_orientations(photos):
    crops, seen, corners, shown = Crops(photos, 24, 4), set(), set(), set()
    for step in range(40):
        for hr in large(crops, step):
            upright = [np.rot90(turned, i) for turned in (hr, hr[:, ::-1]) for i in range(4)]
            right = [
                i
                for i, x in enumerate(upright)
                if (np.diff(x[..., 0], axis=1) == 1).all() and (np.diff(x[..., 1], axis=0) == 1).all()
            ]
            assert len(right) == 1  # neighbours are neighbours: nothing was resized
            seen.add(right[0])
            corners.add(tuple(upright[right[0]][0, 0, :2]))
            shown.add(hr[0, 0, 2])
    assert seen == set(range(8)) and len(corners) > 100 and shown == {0, 20, 40, 60, 80}


def test_lr_is_the_crop_reduced_by_pillow_s_bicubic_filter(photos):
    lr, hr = Crops(photos, 24, 4).batch(3, 2)
    assert lr.shape == (2, 6, 6, 3) and lr.dtype == hr.dtype == np.float32
    for small, image in zip(lr, hr, strict=True):
        pixels = np.rint(image * 127.5 + 127.5).astype(np.uint8)
        expected = np.asarray(Image.fromarray(pixels).resize((6, 6), Image.Resampling.BICUBIC))
        assert np.array_equal(np.rint(small * 127.5 + 127.5), expected)


def test_a_batch_depends_on_seed_and_step_alone(photos):
    forward, back = Crops(photos, 24, 4), Crops(photos, 24, 4)
    batches = [large(forward, step) for step in range(30)]
    for step in (29, 3, 17):
        assert np.array_equal(large(back, step), batches[step])
    assert not np.array_equal(large(Crops(photos, 24, 4, seed=1), 3), batches[3])
    assert not np.array_equal(batches[0], batches[1])


def test_a_photograph_is_decoded_once_for_many_crops_and_a_batch_shows_several(photos, monkeypatch):
    crops, decoded = Crops(photos, 24, 4), []
    monkeypatch.setattr(
        crops, "draw", lambda index, position: decoded.append(index) or Crops.draw(crops, index, position)
    )
    batches = [large(crops, step, LANES) for step in range(64)]
    assert len(decoded) <= 64 * LANES / crops.crops + LANES
    assert all(len(set(batch[:, 0, 0, 2])) == 5 for batch in batches)


def test_orientations():
    image = np.array([[1, 2], [3, 4]])
    assert len({oriented(image, i).tobytes() for i in range(8)}) == 8


def test_photographs_that_cannot_be_used_are_left_out(photos):
    Image.new("RGB", (80, 20)).save(photos[1])
    photos[3].write_bytes(b"broken")
    crops = Crops(photos, 24, 4)
    shown = {int(hr[0, 0, 2]) for step in range(16) for hr in large(crops, step)}
    assert shown == {0, 40, 80} and set(crops.skipped) == {photos[1], photos[3]}
    assert "80x20 pixels are less than a crop of 24x24 (--hr-size)" in crops.skipped[photos[1]]
    with pytest.raises(DataError, match="None of the 5 images"):
        Crops(photos, 96, 4).batch(0, 1)


def test_whole_photographs_are_cropped_to_a_multiple_of_the_scale(photos):
    Image.open(photos[0]).crop((0, 0, 79, 57)).save(photos[0])
    lr, hr = WholePhotographs(photos, 4).pair(0)
    assert hr.shape == (56, 76, 3) and np.array_equal(hr, np.asarray(Image.open(photos[0]))[:56, :76])
    assert np.array_equal(lr, np.asarray(Image.fromarray(hr).resize((19, 14), Image.Resampling.BICUBIC)))
    middle = WholePhotographs(photos, 4, most=40).pair(1)[1]
    assert middle.shape == (40, 40, 3) and tuple(middle[0, 0, :2]) == (20, 10)
    Image.new("RGB", (19, 80)).save(photos[2])
    with pytest.raises(DataError, match="20 is the least"):
        WholePhotographs(photos, 4).pair(2)


@pytest.mark.parametrize(
    "large_name, small_name",
    [
        ("baby.png", "babyx4.png"),
        ("baby.png", "baby.png"),
        ("baby.png", "baby_LRBI_x4.png"),
        ("baby_HR.png", "baby_LR.png"),
        ("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png"),
        ("0801.png", "0801x4.jpg"),
    ],
)
def test_small_versions_are_found_by_their_names_and_sizes(tmp_path, large_name, small_name):
    for folder, name, size in (
        ("hr", large_name, (81, 160)),
        ("lr", f"2/{small_name}", (40, 80)),
        ("lr", f"4/{small_name}", (21, 40)),  # 81 / 4, rounded up
        ("lr", "4/other.png", (21, 40)),
    ):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    path = tmp_path / "hr" / large_name
    found = ready_versions([path], tmp_path / "lr", 4)
    assert found == {path: tmp_path / "lr" / "4" / small_name}
    lr, hr = WholePhotographs([path], 4, ready=found).pair(0)
    assert (lr.shape, hr.shape) == ((40, 20, 3), (160, 80, 3))
    with pytest.raises(DataError, match=f"holds no 10x20 version of .*{path.stem}x8"):
        ready_versions([path], tmp_path / "lr", 8)


def test_small_and_large_versions_in_one_folder(tmp_path):
    for i in range(3):
        Image.new("RGB", (80, 40)).save(tmp_path / f"img_{i}_SRF_4_HR.png")
        Image.new("RGB", (20, 10)).save(tmp_path / f"img_{i}_SRF_4_LR.png")
    found = ready_versions(sorted(tmp_path.iterdir()), tmp_path, 4)
    assert {a.name: b.name for a, b in found.items()} == {
        f"img_{i}_SRF_4_HR.png": f"img_{i}_SRF_4_LR.png" for i in range(3)
    }
