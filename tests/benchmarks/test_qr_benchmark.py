"""``python -m benchmarks.qr`` and its sweeps: repeatable codes, reserved texts only, and correct scores."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("qrcode")
pytest.importorskip("zxingcpp")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmark is not part of the installed package

# ruff: noqa: E402
from benchmarks.qr import sweeps
from benchmarks.qr.__main__ import main
from benchmarks.qr.baselines import BASELINES, bicubic, lanczos, lanczos_unsharp, nearest
from benchmarks.qr.readers import many_scales, readers
from benchmarks.qr.samples import STILL, TRACKS, VERSIONS, data_modules, photographed, samples, versions
from benchmarks.qr.scores import Scores, module_errors, otsu, table
from tinysrgan.data.images import area_average, decode
from tinysrgan.data.qr_codes import KINDS, LEVELS, is_reserved, modules, payload
from tinysrgan.formats.checkpoint import save_generator
from tinysrgan.metrics.qr_reader import read_code
from tinysrgan.models import Generator
from tinysrgan.ops.parallel import single_threaded_blas


@pytest.fixture(autouse=True, scope="module")
def calm():
    """Limit BLAS to one thread: on a busy machine, its threads would mostly wait for each other on small products."""
    with single_threaded_blas():
        yield


@pytest.fixture(scope="module", params=[track for track in TRACKS if track != "camera"])
def track(request):
    """Return the name of a track with known centres, and its first five codes of each version."""
    return request.param, samples(request.param, 5)


@pytest.fixture(scope="module")
def photographs():
    """Return the first six codes of each version on the track "camera"."""
    return samples("camera", 6)


@pytest.fixture(scope="module")
def starter_texts():
    """Return the texts of the codes in data/qr."""
    texts = {read_code(np.asarray(decode(path))) for path in (ROOT / "data" / "qr").glob("*.png")}
    assert len(texts) > 300 and None not in texts
    return texts


# ---------------------------------------------------------------- the codes


@pytest.mark.parametrize("name", TRACKS)
def test_all_texts_are_kept_out_of_training(name, starter_texts):
    count = 10 if name == "camera" else 100  # photographs take longer
    codes = samples(name, count)
    assert all(is_reserved(code.text) for code in codes)
    assert [code.version for code in codes] == [version for version in versions(name) for _ in range(count)]
    assert versions(name) == ((1, 2, 3, 4, 5, 6) if name == "camera" else VERSIONS)
    if name == "article":
        assert all(len(code.text) == 4 and int(code.text) % 10 == 7 and int(code.text) > 1000 for code in codes)
        assert all(len({code.text for code in codes if code.version == version}) == 100 for version in VERSIONS)
    assert not starter_texts & {code.text for code in codes}


def test_the_codes_are_always_the_same(track):
    name, codes = track
    fewer = samples(name, 2)
    same = [code for i, code in enumerate(codes) if i % 5 < 2]
    for one, other in zip(fewer, same, strict=True):
        assert one.text == other.text
        np.testing.assert_array_equal(one.lr, other.lr)
        np.testing.assert_array_equal(one.hr, other.hr)
    assert len({code.hr.tobytes() for code in codes}) == len(codes)


def test_the_originals_scan_and_every_module_is_where_it_should_be(track):
    for code in track[1]:
        assert (code.lr.shape, code.hr.shape, code.lr.dtype, code.hr.dtype) == (
            (32, 32),
            (128, 128),
            np.uint8,
            np.uint8,
        )
        assert read_code(code.hr) == code.text
        assert module_errors(code.hr, code) == 0


def test_what_the_tracks_do_to_the_small_image(track):
    name, codes = track
    shrunk = [area_average(Image.fromarray(code.hr), 32).astype(int) for code in codes]
    off = np.array([np.abs(code.lr - small).mean() for code, small in zip(codes, shrunk, strict=True)])
    white = np.array([code.lr[:2].mean() for code in codes])
    if name == "hard":
        assert off.min() > 10
        assert 175 < white.min() < 200 and 235 < white.max() < 256
    else:
        assert off.max() < 0.6 and white.min() > 235  # the corner of a rotated code may touch the border
    upright = [code for code in codes if np.ptp(code.centres[0], axis=1).max() < 1e-9]
    assert len(upright) == (0 if name == "rot" else len(codes))


def test_the_photographs_are_always_the_same(photographs):
    for one, other in zip(samples("camera", 1), photographs[::6], strict=True):
        assert one.text == other.text
        np.testing.assert_array_equal(one.lr, other.lr)
        np.testing.assert_array_equal(one.hr, other.hr)


def test_most_originals_of_photographs_scan(photographs):
    """The rest are bent, tilted and small at once."""
    for code in photographs:
        side = len(code.lr)
        assert code.lr.shape == (side, side) and code.hr.shape == (4 * side, 4 * side) and code.centres is None
        border = np.concatenate([code.hr[0], code.hr[-1], code.hr[:, 0], code.hr[:, -1]])
        assert set(border) in ({255}, {0})  # 0 around an inverted code
        assert read_code(code.hr) in (code.text, None)
    assert np.mean([read_code(code.hr) == code.text for code in photographs]) > 0.9


@pytest.mark.parametrize("version", VERSIONS)
def test_the_data_modules_are_those_that_differ(version):
    rng = np.random.default_rng(version)
    choices = [(level, KINDS[i % 3], i % 8) for i in range(24) for level in LEVELS]
    symbols = np.stack(
        [modules(payload(rng, version, level, kind), version, level, mask) for level, kind, mask in choices]
    )
    constant = ~(symbols != symbols[0]).any(axis=0)
    assert constant[~data_modules(version)].all()
    assert constant[data_modules(version)].sum() <= 1  # one bit is always 0 and flipped by every mask


# ---------------------------------------------------------------- baselines


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_leave_a_plain_image_plain(name):
    for level in (0, 93, 255):
        np.testing.assert_array_equal(BASELINES[name](np.full((8, 9), level, np.uint8)), np.full((32, 36), level))


def test_baselines_know_up_from_down_and_left_from_right():
    image = np.zeros((8, 9), np.uint8)
    image[1, 6] = 255
    for upscale in BASELINES.values():
        large = upscale(image).astype(float)
        y, x = np.argwhere(large == large.max()).mean(axis=0)
        assert (y, x) == (5.5, 25.5)
        np.testing.assert_array_equal(upscale(image.T), large.T)


def test_the_baselines_are_opencvs():
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    for upscale, method in ((nearest, "NEAREST"), (bicubic, "CUBIC"), (lanczos, "LANCZOS4")):
        theirs = cv2.resize(image, (128, 128), interpolation=getattr(cv2, f"INTER_{method}"))
        assert np.abs(upscale(image).astype(int) - theirs).max() <= 1
    large = lanczos(image).astype(np.float32)
    sharp = np.clip(large + 1.5 * (large - cv2.GaussianBlur(large, (0, 0), 1.5)), 0, 255)
    assert np.abs(lanczos_unsharp(image) - sharp)[8:-8, 8:-8].max() <= 1.5  # OpenCV mirrors the image at its edges


def test_what_is_known_of_the_baselines():
    """Of version 1, bicubic scans about half, Lanczos and unsharp masking nearly all. Of version 4, none scans."""
    codes = [code for code in samples("article", 40) if code.version in (1, 4)]

    def rate(name: str, version: int) -> float:
        chosen = [code for code in codes if code.version == version]
        return float(np.mean([read_code(BASELINES[name](code.lr)) == code.text for code in chosen]))

    assert 0.3 < rate("bicubic", 1) < 0.75
    assert rate("Lanczos", 1) > 0.85
    assert rate("Lanczos + unsharp", 1) > 0.95
    assert not any(rate(name, 4) for name in ("bicubic", "Lanczos", "Lanczos + unsharp"))


# ---------------------------------------------------------------- readers


def test_every_reader_reads_a_clear_code_and_nothing_in_noise():
    found, _ = readers()
    assert list(found)[:2] == ["zxing", "many"]
    code = samples("mixed", 1)[1]
    noise = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    for read in found.values():
        assert read(np.kron(code.hr, np.full((2, 2), 1, np.uint8))) == code.text
        assert read(noise) is None


def test_many_scales_read_what_one_scale_misses():
    codes = samples("mixed", 20)
    one = {code.text for code in codes if read_code(code.lr) is not None}
    many = {code.text for code in codes if many_scales(code.lr) == code.text}
    assert not one and many


def test_absent_readers_are_named(monkeypatch):
    for package in ("cv2", "zbar", "pyzbar"):
        monkeypatch.setitem(sys.modules, package, None)
    found, absent = readers()
    assert list(found) == ["zxing", "many"]
    assert [line.split()[0] for line in absent] == ["OpenCV", "zbar"]
    assert "pip install opencv-python-headless" in absent[0] and "pip install zbar-py" in absent[1]


# ---------------------------------------------------------------- scores


def test_module_errors_are_counted_one_by_one(track):
    code = track[1][-1]
    places = np.argwhere(data_modules(code.version))[::40]
    spoilt = code.hr.copy()
    for row, column in places:
        y, x = code.centres[:, row, column]
        spoilt[int(y) : int(y) + 2, int(x) : int(x) + 2] = 255 * code.modules[row, column]
    expected = 100 * len(places) / data_modules(code.version).sum()
    assert math.isclose(module_errors(spoilt, code), expected)
    assert module_errors(255 - code.hr, code) == 100


def test_otsu_parts_two_heaps():
    image = np.array([[10, 12, 14, 10], [200, 202, 190, 12]], np.uint8)
    assert 14 <= otsu(image) < 190
    assert otsu(np.kron(image, np.full((400, 400), 1, np.uint8))) == otsu(image)  # no overflow


def test_scores_count_what_scans_what_is_misread_and_what_is_wrong():
    codes = samples("article", 2)
    scores = Scores({"zxing": read_code, "liar": lambda image: "1234"})
    for code in codes:
        scores.add(code.hr if code.version < 3 else np.full_like(code.hr, 255), code)
    report = scores.report()
    zxing = report["scans"]["zxing"]
    assert [zxing[name]["rate"] for name in zxing] == [100, 100, 0, 0, pytest.approx(200 / 3), 50]
    assert zxing["all"]["scanned"] == 4 and zxing["all"]["of"] == 8
    assert zxing["v1"]["low"] == pytest.approx(34.24, abs=0.01) and zxing["v1"]["high"] == 100  # Wilson, 2 of 2
    assert report["misreads"] == {"zxing": 0, "liar": 8}
    assert report["psnr"] is None and 0 < report["ssim"] < 1  # identical images have no finite PSNR
    lines = table({"a way": report}).splitlines()
    assert lines[0].split() == "v1 v2 v3 v4 v1-v3 all liar misread MER PSNR SSIM".split()
    assert "100 (34-100)" in lines[1] and " 0/8 " in lines[1]


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Save two generators, one with scale 4 and one with scale 2."""
    folder = tmp_path_factory.mktemp("weights")
    for scale in (4, 2):
        save_generator(folder / f"x{scale}.h5", Generator(blocks=1, filters=8, scale=scale), {})
    return folder


def test_the_command(weights, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    arguments = ["--weights", weights / "x4.h5", "--tracks", "rot", "--quick", "--device", "cpu", "--out", out]
    assert main([*map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity
    ways = report["tracks"]["rot"]
    names = ["LR as it is", *BASELINES, str(weights / "x4.h5"), "original"]
    assert list(ways) == names and report["codes of each version"] == 10
    assert ways["original"]["scans"]["zxing"]["all"]["scanned"] == 40 and ways["original"]["module errors"] == 0
    assert ways["nearest"]["psnr"] < ways["bicubic"]["psnr"] < ways["Lanczos + unsharp"]["psnr"]
    text = (out / "results.txt").read_text()
    assert text in printed and all(name in text for name in names)
    with Image.open(out / "rot.png") as picture:
        assert picture.width > 4 * 128 and picture.height > 4 * 128
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.txt", "rot.png"]


def test_a_track_of_photographs(weights, tmp_path, monkeypatch):
    """The images differ in size, and their centres are unknown."""
    monkeypatch.setattr("benchmarks.qr.__main__.samples", lambda track, count: samples(track, 1))
    arguments = ["--weights", weights / "x4.h5", "--tracks", "camera", "--quick", "--device", "cpu", "--out", tmp_path]
    assert main([*map(str, arguments)]) == 0
    ways = json.loads((tmp_path / "results.json").read_text())["tracks"]["camera"]
    assert list(ways["original"]["scans"]["zxing"]) == ["v1", "v2", "v3", "v4", "v5", "v6", "v1-v3", "all"]
    assert ways["nearest"]["module errors"] is None and ways["nearest"]["psnr"] > 0
    with Image.open(tmp_path / "camera.png") as picture:
        assert picture.height > 6 * 128


def test_what_rescue_reads(tmp_path, monkeypatch):
    """``rescue`` reads codes that scan once they are enlarged. Its picture is not compared with HR."""
    monkeypatch.setattr("benchmarks.qr.__main__.samples", lambda track, count: samples(track, 1)[:2])
    assert main(["--tracks", "article", "--rescue", "--device", "cpu", "--out", str(tmp_path)]) == 0
    ways = json.loads((tmp_path / "results.json").read_text())["tracks"]["article"]
    [name] = [name for name in ways if name.startswith("rescue with ")]
    assert ways[name]["scans"]["zxing"]["all"]["scanned"] == 2 and ways[name]["psnr"] is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--weights", "none.h5"], "none.h5"),
        (["--weights", "x2.h5"], "x2.h5 upscales x2; the benchmark is about x4."),
        (["--weights", "x4.h5", "--out", "x4.h5"], "x4.h5: File exists."),
    ],
)
def test_mistakes_are_one_sentence(weights, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(weights)
    assert main(["--quick", "--device", "cpu", *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "doesn't read along" not in line]
    assert len(lines) == 1 and message in lines[0]


def test_without_qrcode_it_says_what_to_install(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "qrcode", None)
    assert main(["--weights", str(weights / "x4.h5"), "--quick", "--out", str(tmp_path)]) == 2
    assert "pip install qrcode" in capsys.readouterr().err


def test_ctrl_c_is_one_line(weights, tmp_path, monkeypatch, capsys):
    def stop(track, count):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.qr.__main__.samples", stop)
    assert main(["--weights", str(weights / "x4.h5"), "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("tinysrgan: stopped")


def test_an_unknown_track_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--tracks", "easy"])
    assert "article" in capsys.readouterr().err


# ---------------------------------------------------------------- sweeps


def swept(name: str, i: int = 0):
    """Return code ``i`` of a sweep. The random state depends on ``i`` only, so all sweeps have the same texts."""
    camera = replace(STILL, **sweeps.SWEEPS[name])
    return photographed(camera, 1 + i % 4, i, np.random.default_rng([sweeps.SEED, i]))


def test_all_rows_have_the_same_reserved_texts():
    texts = {swept(name).text for name in sweeps.SWEEPS}
    assert len(texts) == 1 and is_reserved(texts.pop())
    plain = swept("none")
    assert np.abs(plain.lr.astype(int) - area_average(Image.fromarray(plain.hr), len(plain.lr))).max() <= 1


@pytest.mark.parametrize(
    "name, black, white",
    [
        ("none", 0, 255),
        ("grey 60 to 190", 60, 190),
        ("grey 90 to 150", 90, 150),
        ("black 50", 50, 255),
        ("black 90", 90, 255),
        ("white 160", 0, 160),
    ],
)
def test_rows_of_levels_have_the_levels_in_their_names(name, black, white):
    code = swept(name)
    assert (code.lr.min(), code.lr.max()) == (black, white) and (code.hr.min(), code.hr.max()) == (0, 255)


@pytest.mark.parametrize("name", [name for name in sweeps.SWEEPS if name.startswith("pitch")])
def test_rows_of_pitches_have_the_pitch_in_their_names(name):
    code, pitch = swept(name), float(name.split()[1])
    columns = np.flatnonzero((code.hr < 128).any(axis=0))
    assert (columns[-1] - columns[0] + 1) / 4 == pytest.approx(21 * pitch, abs=0.5)


def test_rows_of_scene_optics_and_sensor_change_only_lr():
    plain = swept("none")
    for name in ("noise 16", "inverted", "JPEG 40", "blur 0.5", "light falls off by half"):
        code = swept(name)
        hr = 255.0 - code.hr if name == "inverted" else code.hr
        np.testing.assert_allclose(hr, plain.hr, atol=name == "inverted")
        assert np.abs(code.lr.astype(int) - plain.lr).max() > 20
    light = [swept(name).lr.mean() for name in ("ink +0.2", "ink +0.1", "none", "ink -0.1", "ink -0.2")]
    assert light == sorted(light)


def test_a_quick_run_of_the_sweeps(weights, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "sweeps"
    assert sweeps.main(["--count", "2", "--weights", str(weights / "x4.h5"), "--out", str(out)]) == 0
    report = json.loads((out / "sweeps.json").read_text())
    assert list(report["rates"]) == list(sweeps.SWEEPS)
    ways = [way for way in report["misreads"] if way != "WeChat"]
    assert ways == ["as it is", "Lanczos + unsharp", str(weights / "x4.h5")]
    assert all(rate in (0, 50, 100) for row in report["rates"].values() for rate in row.values())
    assert report["rates"]["pitch 6"]["as it is"] == 100
    assert (out / "sweeps.txt").read_text() in capsys.readouterr().out
    with Image.open(out / "sweeps.png") as picture:
        assert picture.width > 800
    assert sorted(path.name for path in out.iterdir()) == ["sweeps.json", "sweeps.png", "sweeps.txt"]


def test_without_a_reader_the_sweeps_say_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    assert sweeps.main(["--count", "1"]) == 2
    assert "pip install zxing-cpp" in capsys.readouterr().err
