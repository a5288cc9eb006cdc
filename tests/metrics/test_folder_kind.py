"""What tells a folder of photographs from one of codes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.metrics.folder_kind import folder_kind, is_photograph

CODES = sorted((Path(__file__).parents[2] / "data" / "qr").glob("*.png"))


@pytest.fixture(params=["with zxing-cpp", "without"])
def reader(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "zxingcpp", None)
    else:
        pytest.importorskip("zxingcpp")


def test_photographs_and_codes(reader):
    data = pytest.importorskip("skimage.data")
    for name in ("astronaut", "camera", "chelsea", "coffee", "rocket", "brick", "grass"):
        pixels = getattr(data, name)()
        assert is_photograph(np.asarray(Image.fromarray(pixels).convert("RGB"))), name
    assert not any(is_photograph(np.asarray(Image.open(path).convert("RGB"))) for path in CODES[:8])


def test_a_photograph_of_a_code_is_a_code():
    """A grey code on an uneven background, which the reader reads."""
    pytest.importorskip("zxingcpp")
    code = np.asarray(Image.open(CODES[0]).convert("RGB")).astype(float)
    light = np.linspace(0.4, 1, code.shape[1])[:, None]
    assert not is_photograph((60 + code * 0.7 * light).astype(np.uint8))


def test_most_of_the_images_decide_and_damaged_ones_do_not_count(tmp_path):
    data = pytest.importorskip("skimage.data")
    for i in range(3):
        Image.fromarray(data.coffee()).save(tmp_path / f"a{i}.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    paths = sorted(tmp_path.iterdir())
    assert folder_kind([*paths, *CODES[:2]], 128) == "photographs"
    assert folder_kind([*paths, *CODES[:3]], 128) == "codes"
    assert folder_kind([paths[-1]], 128) == "codes"


def test_small_blurred_codes_are_no_photographs(tmp_path):
    for path in CODES[:4]:
        Image.open(path).convert("L").resize((64, 64)).resize((32, 32), Image.Resampling.BOX).save(tmp_path / path.name)
    small = sorted(tmp_path.iterdir())
    assert all(is_photograph(np.asarray(Image.open(path).convert("RGB"))) for path in small)
    assert folder_kind(small, 128) == "small"
    assert folder_kind([*small, *CODES[:4]], 128) == "codes"
