"""benchmarks/qr/photographs.py counts the codes that each reader reads, and the misread codes."""

import json

import pytest
from photographs import corners, photograph

from benchmarks.qr.photographs import main, table

pytest.importorskip("zxingcpp")
pytest.importorskip("qrcode")


def test_a_folder_is_measured(tmp_path, capsys):
    photograph("HELLO 77", 1, corners(21, 3)).save(tmp_path / "a.png")
    codes = [{"text": "HELLO 77", "version": 1}]
    (tmp_path / "photos.json").write_text(json.dumps([{"file": "a.png", "size": 1.0, "codes": codes}]))
    line = [str(tmp_path), "--only", "lanczos", "classical", "--out", str(tmp_path / "out.json")]
    assert main(line) == 0
    assert "| lanczos (x1, x2, x4) | 100 | 100 | 0 |" in capsys.readouterr().out
    assert [reading["read"] for reading in json.loads((tmp_path / "out.json").read_text())] == [True, True]


def test_a_misread_picture_counts_as_such():
    reading = {"file": "a.png", "size": 1.0, "way": "rescue", "read": True, "misread": ["x"], "seconds": 1.0}
    assert "| rescue | 100 | 100 | 1 | 1.00 / 1.00 / 1.00 |" in table([reading])


def test_a_folder_without_truth_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    (tmp_path / "photos.json").write_text("[{}]")
    assert main([str(tmp_path)]) == 2
    assert "doesn't say what the pictures show" in capsys.readouterr().err
