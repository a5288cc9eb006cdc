"""The QR reader on codes made here, and the scan rates computed from its results."""

import math
import sys

import numpy as np
import pytest
from PIL import Image

from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.qr_reader import ScanTally, available, interval, qr_version, read_code, read_codes, version_of

reader = pytest.mark.skipif(not available(), reason=qr_reader.MISSING)


def code(text="7209", version=2, box_size=4):
    """Return a QR code as a uint8 image (H, W), black on white, made by python-qrcode."""
    qrcode = pytest.importorskip("qrcode")
    maker = qrcode.QRCode(version=version, border=4, box_size=box_size)
    maker.add_data(text)
    maker.make(fit=False)
    return np.asarray(maker.make_image().convert("L"))


@reader
@pytest.mark.parametrize("text", ["7209", "https://example.org/a?b=1", "ÄÖ 漢字"])
def test_a_code_is_read(text):
    assert read_code(code(text, version=4)) == text
    assert read_codes(code(text, version=4)) == [text]


@reader
def test_grey_rgb_and_views_are_read_alike():
    grey = code()
    rgb = np.stack([grey] * 3, axis=2)
    assert read_code(rgb) == read_code(rgb[:, ::-1][:, ::-1]) == read_code(np.asfortranarray(grey)) == "7209"


@reader
def test_colours_are_taken_as_rgb():
    """Dark blue on red is 11 on 76 in grey. With red and blue exchanged it would be 29 on 29."""
    image = np.where(code()[:, :, None] == 0, np.uint8([0, 0, 97]), np.uint8([255, 0, 0]))
    assert read_code(image) == "7209"
    assert read_code(image[:, :, ::-1]) is None


@reader
@pytest.mark.parametrize("degrees", [90, 180, 20, -37])
def test_a_rotated_code_is_read(degrees):
    rotated = Image.fromarray(code(box_size=8)).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    assert read_code(np.asarray(rotated)) == "7209"


@reader
def test_control_characters_are_read_as_they_are():
    assert read_code(code("\x1d0109\n<GS>", version=3)) == "\x1d0109\n<GS>"


@reader
def test_an_image_with_a_side_that_the_reader_does_not_take():
    small = code(box_size=6)
    image = np.full((70_000, small.shape[1]), 255, np.uint8)
    image[69_000 : 69_000 + len(small)] = small
    [near], [far] = qr_reader.located_codes(small), qr_reader.located_codes(image)
    assert far.text == near.text == "7209" and abs(far.corners - near.corners - (0, 69_000)).max() < 6


@reader
def test_an_inverted_code_is_read():
    assert read_code(255 - code()) == "7209"


@reader
def test_two_codes_in_one_image():
    both = np.hstack([code("first"), code("second")])
    assert sorted(read_codes(both)) == ["first", "second"]
    assert read_code(both) in ("first", "second")


@reader
def test_what_holds_no_readable_code_gives_none():
    blurred = Image.fromarray(code(version=4)).resize((16, 16), Image.Resampling.BOX).resize((132, 132))
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    half = code()[:, :50]
    for image in (np.asarray(blurred), noise, half, np.zeros((1, 1), np.uint8), np.full((64, 64, 3), 255, np.uint8)):
        assert read_code(image) is None
        assert read_codes(image) == []
        assert qr_version(image) is None


@reader
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8)),
        np.zeros((8, 8), bool),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((8, 0, 3), np.uint8),
        np.zeros(8, np.uint8),
    ],
)
def test_what_is_no_image(image):
    for function in (read_code, read_codes, qr_version):
        with pytest.raises(ValueError, match=r"takes uint8 images \(H, W\) or \(H, W, 3\), not"):
            function(image)


@reader
@pytest.mark.parametrize("version", [1, 2, 3, 4, 10])
def test_version_as_the_reader_tells_it(version):
    image = code(version=version)
    if not hasattr(pytest.importorskip("zxingcpp").read_barcode(image), "extra"):
        assert qr_version(image) is None
        pytest.skip("this zxing-cpp doesn't tell the version")
    assert qr_version(image) == version


@pytest.mark.parametrize(
    "name, version",
    [
        ("7209-v4.png", 4),
        ("data/qr/7209-v12.jpeg", 12),
        ("a-v2-v3.png", 3),
        ("7209.png", None),
        ("7209-v4-copy.png", None),
        ("7209-v0.png", None),
        ("7209-v41.png", None),
        ("7209-v123.png", None),
        ("folder-v4/7209.png", None),
        ("v4.png", None),
    ],
)
def test_version_from_the_name(name, version):
    assert version_of(name) == version


def test_without_the_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    assert not available()
    for function in (read_code, read_codes, qr_version):
        with pytest.raises(ImportError, match="pip install zxing-cpp"):
            function(np.zeros((8, 8), np.uint8))


def test_interval_by_hand():
    assert interval(0, 0) == (0, 100)
    assert interval(0, 10) == pytest.approx((0, 27.753), abs=1e-3)  # high = z^2 / (n + z^2)
    assert interval(10, 10) == pytest.approx((72.247, 100), abs=1e-3)
    assert interval(50, 100) == pytest.approx((40.383, 59.617), abs=1e-3)
    assert interval(1, 1)[1] == 100 and interval(0, 1)[0] == 0


def test_interval_holds_the_rate_and_narrows():
    widths = []
    for total in (5, 50, 500):
        low, high = interval(total // 5, total)
        assert 0 <= low < 20 < high <= 100
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("successes, total", [(-1, 3), (4, 3), (0, -1)])
def test_interval_of_nonsense(successes, total):
    with pytest.raises(ValueError, match=f"{successes} successes in {total} trials"):
        interval(successes, total)


def test_tally():
    tally = ScanTally()
    assert math.isnan(tally.rate()) and tally.count() == tally.scanned() == tally.misreads() == 0
    tally.add("1234", 1, "1234")
    tally.add("5678", 1, None)
    tally.add("abcd", 2, "abcd")
    tally.add("efgh", 2, "efgh ")
    tally.add("ijkl", 4, "")
    tally.add("mnop", None, "mnop")
    tally.add(None, 3, "anything")
    assert tally.no_code == 1
    assert tally.versions == [1, 2, 4]
    assert (tally.count(), tally.scanned(), tally.misreads()) == (6, 3, 2)
    assert (tally.count([1]), tally.scanned([1]), tally.misreads([1])) == (2, 1, 0)
    assert (tally.count([1, 2]), tally.scanned([1, 2]), tally.misreads([1, 2])) == (4, 2, 1)
    assert tally.rate() == tally.rate([1]) == tally.rate([2]) == tally.rate({1, 2}) == 50
    assert tally.rate([4]) == 0
    assert math.isnan(tally.rate([3]))  # its only code is unreadable at full size


def test_tallies_are_independent():
    ScanTally().add("a", 1, "a")
    assert ScanTally().count() == 0
