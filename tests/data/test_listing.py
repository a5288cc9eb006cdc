"""Listing a folder's images: all of them, in a fixed order; the files left out are counted."""

import os
from pathlib import Path

import pytest

from tinysrgan.data.images import ENDINGS, DataError, read_image
from tinysrgan.data.listing import find_images
from tinysrgan.metrics.qr_reader import version_of


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


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


def test_pictures_of_a_training_run_are_counted_and_left_out_but_not_the_user_s_own(tmp_path):
    own = ["codes/losses.png", "codes/pictures/step-1.png", "codes/log.csv", "runs/1/a.png", "runs/1/pictures/b.png"]
    touch(tmp_path, *own, *(f"runs/1/{name}" for name in ("log.csv", "losses.png", "pictures/step-000100.png")))
    touch(tmp_path, "runs/1/generator.h5")
    told: list[str] = []
    found = names(find_images(tmp_path, tell=told.append), tmp_path)
    assert found == ["codes/losses.png", "codes/pictures/step-1.png", "runs/1/a.png", "runs/1/pictures/b.png"]
    assert told == [f"Left out in {tmp_path}: 2 .csv, 2 made by training runs, 1 .h5."]


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
