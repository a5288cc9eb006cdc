"""examples/make_qr.py makes readable codes with the right texts, and data/qr equals its output."""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.data.qr_codes import is_reserved
from tinysrgan.metrics.qr_reader import qr_version, read_codes

pytest.importorskip("qrcode")
pytest.importorskip("zxingcpp")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "make_qr.py"
STARTER = ROOT / "data" / "qr"


def load():
    spec = importlib.util.spec_from_file_location("make_qr", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_qr = load()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"))


def run(*arguments) -> int:
    """Return the command's exit status."""
    try:
        return make_qr.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_reader_reads_exactly_the_text():
    """Read codes of all versions, levels and kinds, and four public ones."""
    codes = make_qr.recipe(96, seed=5)
    assert len({(version, level) for *_, version, level in codes[48:]}) == 16
    for name, text, version, level in codes[44:]:
        image = make_qr.make(text, version, level)
        assert image.mode == "1" and image.size == (10 * (17 + 4 * version + 8),) * 2, name
        assert read_codes(pixels(image)) == [text], name
        assert qr_version(pixels(image)) in (version, None), name


def test_texts_that_end_in_7_are_never_made():
    """Public codes hold all four-digit numbers except those ending in 7, and no text is reserved for the benchmark."""
    public = make_qr.public(np.random.default_rng(3), 9000)
    assert {int(text) for _, text, _, _ in public} == {n for n in range(1000, 10000) if n % 10 != 7}
    assert not any(is_reserved(text) for _, text, _, _ in make_qr.recipe(4000, seed=6))


def test_half_public_half_mixed_all_versions_alike():
    codes = make_qr.recipe(96, seed=1)
    assert len({name for name, *_ in codes}) == 96
    assert Counter(name.startswith("mixed") for name, *_ in codes) == {False: 48, True: 48}
    for half in (codes[:48], codes[48:]):
        assert Counter(version for *_, version, _ in half) == {1: 12, 2: 12, 3: 12, 4: 12}
    assert Counter(level for *_, level in codes[48:]) == {"L": 12, "M": 12, "Q": 12, "H": 12}


def test_the_public_set():
    codes = make_qr.recipe(10_000, seed=0, only_public=True)
    assert len({text for _, text, _, _ in codes}) == 2500
    assert Counter((version, level) for *_, version, level in codes) == {(v, "M"): 2500 for v in (1, 2, 3, 4)}
    assert all(name == f"{text}-v{version}.png" for name, text, version, _ in codes)


def test_the_same_seed_makes_the_same_bytes(tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        assert run(tmp_path / name, "--count", 12, "--seed", seed) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")
    assert len(contents(tmp_path / "a")) == 12


def test_the_public_kind_from_the_command_line(tmp_path):
    assert run(tmp_path, "--public", "--count", 8) == 0
    assert Counter(name.split("-")[1] for name in contents(tmp_path)) == {f"v{v}.png": 2 for v in (1, 2, 3, 4)}
    for name in contents(tmp_path):
        with Image.open(tmp_path / name) as image:
            assert read_codes(pixels(image)) == [name[:4]]


def test_a_folder_that_can_t_be_made_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(tmp_path / "file" / "codes", "--count", 4) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "codes" in error and "directory" in error.lower()


def test_other_files_are_safe(tmp_path, capsys):
    (tmp_path / "diary.txt").write_text("mine")
    assert run(tmp_path, "--count", 4) == 2
    assert "diary.txt" in capsys.readouterr().err
    assert run(tmp_path / "diary.txt", "--count", 4) == 2
    assert contents(tmp_path) == {"diary.txt": b"mine"}


def test_a_folder_of_its_own_may_be_filled_again(tmp_path):
    assert run(tmp_path, "--count", 4) == 0
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert run(tmp_path, "--count", 8) == 0
    assert len(contents(tmp_path)) == 9


@pytest.mark.parametrize("wrong", [("--count", 0), ("--count", -3), ("--count", 10**6), ("--seed", -1)])
def test_impossible_numbers_are_refused(wrong, tmp_path, capsys):
    assert run(tmp_path / "codes", *wrong) == 2
    assert "--count must be" in capsys.readouterr().err
    assert not (tmp_path / "codes").exists()


def test_without_qrcode_one_sentence_says_what_to_install(tmp_path):
    (tmp_path / "qrcode.py").write_text("raise ImportError")
    command = [sys.executable, str(SCRIPT), str(tmp_path / "codes")]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, capture_output=True, text=True
    )
    assert result.returncode == 2 and not (tmp_path / "codes").exists()
    assert "pip install qrcode" in result.stderr and "Traceback" not in result.stderr


def test_the_starter_set_is_what_the_recipe_makes():
    codes = make_qr.recipe(600, seed=0)
    assert {path.name for path in STARTER.iterdir()} == {name for name, *_ in codes}
    assert sum(path.stat().st_size for path in STARTER.iterdir()) < 1_000_000
    for name, text, version, level in codes:
        with Image.open(STARTER / name) as image:
            assert image.mode == "1", name
            assert np.array_equal(pixels(image), pixels(make_qr.make(text, version, level))), name
