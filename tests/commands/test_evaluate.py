"""The command ``python -m tinysrgan.evaluate``: right scores, a table, JSON and a picture, and its errors."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from mistakes import contents, python, without_privileges
from PIL import Image
from test_upscaler import repeating

from tinysrgan import evaluate
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.division import split
from tinysrgan.data.images import enlarge
from tinysrgan.data.listing import find_images
from tinysrgan.evaluate import main
from tinysrgan.formats.checkpoint import save, save_generator
from tinysrgan.inference import upscaler as upscaler_module
from tinysrgan.metrics.evaluation import Evaluation, baselines
from tinysrgan.metrics.figures import GREEN, RED
from tinysrgan.metrics.psnr_ssim import crop_border, luma, ssim
from tinysrgan.metrics.scores import Sample
from tinysrgan.models import Discriminator, Generator

ROOT = Path(__file__).parents[2]
CODES = sorted((ROOT / "data" / "qr").glob("*.png"))[:8]  # versions 1 to 4, twice


@pytest.fixture
def reader():
    pytest.importorskip("zxingcpp")


@pytest.fixture(scope="session")
def generators(tmp_path_factory):
    """generator.h5, which repeats pixels and so does what "nearest" does, and one of random weights for colour."""
    folder = tmp_path_factory.mktemp("generators")
    save_generator(folder / "generator.h5", repeating(), {"hr_size": 128})
    save_generator(folder / "random.h5", Generator(blocks=1, filters=4, scale=4, seed=1), {"hr_size": 128})
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, generators):
    """A folder to work in: images/ with four codes, the two generators, and the results of an earlier run."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for path in CODES[:4]:
        shutil.copy(path, "images")
    for path in generators.iterdir():
        shutil.copy(path, tmp_path)
    Path("scores.json").write_text("earlier")
    Path("figure.png").write_text("earlier")
    return tmp_path


@pytest.fixture
def colours(here):
    """Three photo-like images in colour/, without any code."""
    rng = np.random.default_rng(0)
    Path("colour").mkdir()
    for i in range(3):
        pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((70, 90), Image.Resampling.BICUBIC).save(f"colour/{i}.png")
    return Path("colour")


def run(*arguments) -> int:
    return main([*map(str, arguments), "--device", "cpu"])


def scores(*arguments) -> dict:
    """What the command writes for programs."""
    assert run(*arguments, "--json", "scores.json") == 0
    return json.loads(Path("scores.json").read_text())


# ---------------------------------------------------------------- the scores


def test_psnr_and_ssim_are_those_of_scikit_image(colours):
    """On RGB, and on Y without a border of 4 pixels: means over the images."""
    skimage = pytest.importorskip("skimage.metrics")
    report = scores(colours, "--weights", "random.h5", "--hr-size", 64)
    pairs = ImagePairs(find_images(colours), 64, 4)
    upscaler = upscaler_module.load("random.h5", "cpu")
    methods = {
        "nearest": lambda lr: lr.repeat(4, axis=0).repeat(4, axis=1),
        "bicubic": lambda lr: enlarge(lr, 4),
        "Lanczos": lambda lr: np.asarray(Image.fromarray(lr).resize((64, 64), Image.Resampling.LANCZOS)),
        "SR": upscaler,
    }
    assert report["methods"].keys() == methods.keys()
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    for name, method in methods.items():
        expected = []
        for lr, hr in (pairs.pair(i) for i in range(3)):
            image = method(lr)
            y, y_hr = (crop_border(luma(pixels), 4) for pixels in (image, hr))
            expected.append(
                [
                    skimage.peak_signal_noise_ratio(hr, image, data_range=255),
                    skimage.structural_similarity(hr, image, channel_axis=2, **window),
                    skimage.peak_signal_noise_ratio(y_hr, y, data_range=255),
                    skimage.structural_similarity(y_hr, y, **window),
                ]
            )
        result = [report["methods"][name][key] for key in ("psnr", "ssim", "psnr_y", "ssim_y")]
        assert result == pytest.approx(np.mean(expected, axis=0), abs=1e-4)


def test_a_generator_that_repeats_pixels_scores_as_nearest_does(here):
    report = scores("images", "--weights", "generator.h5")
    methods = report["methods"]
    assert methods["SR"] == methods["nearest"] != methods["bicubic"]
    assert (report["images"], report["lr_size"], report["hr_size"]) == (4, 32, 128)
    assert report["weights"] == {"SR": "generator.h5"} and report["skipped"] == {}


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_interpolations(scale):
    lr = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    results = {name: method(lr) for name, method in baselines(scale).items()}
    assert {result.shape for result in results.values()} == {(6 * scale, 5 * scale, 3)}
    assert np.array_equal(results["nearest"], lr.repeat(scale, axis=0).repeat(scale, axis=1))
    assert np.array_equal(results["bicubic"], enlarge(lr, scale))
    assert not np.array_equal(results["Lanczos"], results["bicubic"])


def test_the_border_is_as_wide_as_the_scale():
    """An image that is right but for a frame of 8 pixels is right on Y at scale 8, and not at scale 4."""
    hr = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    framed = hr.copy()
    framed[:8], framed[-8:], framed[:, :8], framed[:, -8:] = 0, 0, 0, 0
    for scale, exact in ((8, True), (4, False)):
        evaluation = Evaluation({"SR": lambda lr: framed}, scale)
        evaluation.record(evaluation.judge(Sample(hr[::scale, ::scale], hr)))
        means = evaluation.scores["SR"].means()
        assert math.isinf(means["psnr_y"]) is exact and not math.isinf(means["psnr"])


def judged(readings: dict[str, dict[str, str | None]]) -> Evaluation:
    """The evaluation of all CODES; each way of upscaling turns the code of one file into that of another, or None."""
    images = {path.stem: Image.open(path).convert("RGB").resize((128, 128)) for path in CODES}
    blank = np.full((128, 128, 3), 255, np.uint8)
    at = iter(path.stem for path in CODES for _ in readings)

    def method(changed: dict[str, str | None]):
        def upscale(lr):
            name = next(at)
            other = changed.get(name, name)
            return blank if other is None else np.asarray(images[other])

        return upscale

    evaluation = Evaluation({name: method(changed) for name, changed in readings.items()}, 4)
    evaluation.run(ImagePairs(CODES, 128, 4), lambda count: None)
    return evaluation


def test_scans_and_misreads_by_version(reader):
    first, second = (CODES[i].stem.split("-")[0] for i in (0, 4))
    evaluation = judged(
        {"perfect": {}, "wrong": {f"{first}-v2": f"{second}-v2", f"{second}-v3": None, f"{first}-v4": None}}
    )
    methods = evaluation.report()["methods"]
    assert {name: rate["percent"] for name, rate in methods["perfect"]["scans"].items()} == {
        **dict.fromkeys(["v1", "v2", "v3", "v4", "v1-v3", "all"], 100)
    }
    wrong = methods["wrong"]["scans"]
    counts = {name: (rate["codes"], rate["scanned"], rate["misread"]) for name, rate in wrong.items()}
    assert counts == {
        "v1": (2, 2, 0),
        "v2": (2, 1, 1),
        "v3": (2, 1, 0),
        "v4": (2, 1, 0),
        "v1-v3": (6, 4, 1),
        "all": (8, 5, 1),
    }
    assert wrong["all"]["percent"] == 62.5
    assert (wrong["all"]["low"], wrong["all"]["high"]) == pytest.approx((30.57, 86.32), abs=0.01)  # Wilson, by hand


def test_the_table_lines_up():
    evaluation = Evaluation({"nearest": None, "a longer name": None}, 4)
    for name, text in (("nearest", None), ("a longer name", "a")):
        one = evaluation.scores[name]
        one.psnr, one.ssim, one.psnr_y, one.ssim_y = [10.0, 11.0], [0.5, 0.25], [math.inf], [1.0]
        for version in (1, 2, 2):
            one.scans.add("a", version, text)
        one.scans.add("a", 3, "b")
        one.scans.add(None, None, None)
    assert evaluation.table().splitlines() == [
        "                     nearest  a longer name",
        "PSNR, dB               10.50          10.50",
        "SSIM                  0.3750         0.3750",
        "PSNR of Y, dB            inf            inf",
        "SSIM of Y             1.0000         1.0000",
        "codes that scan, %",
        "  v1 (of 1)         0 (0-79)   100 (21-100)",
        "  v2 (of 2)         0 (0-66)   100 (34-100)",
        "  v3 (of 1)         0 (0-79)       0 (0-79)",
        "  all (of 4)        0 (0-49)     75 (30-95)",
        "misread codes              1              1",
        "Y: luminance without a border of 4 pixels.",
        "Not as in papers: images become squares, and are shrunk by area averaging.",
        "In brackets: the 95 % interval of the rate.",
        "Originals without a code that can be read, left out there: 1.",
    ]


def test_images_smaller_than_the_large_side_are_counted(colours, capsys):
    """They are 70 x 90 pixels; the shorter side counts."""
    for side, enlarged in ((64, 0), (80, 3)):
        report = scores(colours, "--weights", "random.h5", "--hr-size", side)
        assert report["images_enlarged"] == enlarged
        printed = capsys.readouterr().out
        assert ("Smaller than their square, and enlarged to it: 3 of 3 images." in printed) is bool(enlarged)
        assert "Not as in papers" in printed and max(map(len, printed.splitlines()[1:])) <= 80


def test_photos_have_no_scans(colours, capsys):
    report = scores(colours, "--weights", "random.h5")
    assert report["images_without_code"] == 3
    assert all(method["scans"] == {} for method in report["methods"].values())
    printed = capsys.readouterr().out
    assert "PSNR" in printed and "scan" not in printed and "misread" not in printed


def test_photos_among_codes_are_counted_apart(here, reader, capsys):
    Image.new("RGB", (50, 50), "red").save("images/red.png")
    report = scores("images", "--weights", "generator.h5")
    assert report["images"] == 5 and report["images_without_code"] == 1
    assert report["methods"]["SR"]["scans"]["all"]["codes"] == 4
    assert "left out there: 1." in capsys.readouterr().out
    # it is one colour, so it came out exactly, and the mean PSNR is infinite
    assert report["methods"]["nearest"]["psnr"] is None and report["methods"]["nearest"]["ssim"] < 1


# ---------------------------------------------------------------- the papers' protocol


@pytest.fixture
def photos(here):
    """Two photographs of odd sizes in photos/, 451x300 and 199x199 pixels, the smaller one grey."""
    data = pytest.importorskip("skimage.data")
    Path("photos").mkdir()
    Image.fromarray(data.chelsea()).save("photos/cat.png")
    Image.fromarray(data.camera()[:199, :199]).save("photos/man.png")
    return Path("photos")


def bicubic_on_y(paths) -> list[float]:
    """PSNR of bicubic interpolation by the definition: crop to a multiple of 4, Y, no border of 4 pixels."""
    found = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        width, height = image.width // 4 * 4, image.height // 4 * 4
        image = image.crop((0, 0, width, height))
        lr = image.resize((width // 4, height // 4), Image.Resampling.BICUBIC)
        y, y_hr = (16 + np.asarray(x) @ [65.481, 128.553, 24.966] / 255 for x in (lr.resize(image.size, 3), image))
        error = np.mean((y - y_hr)[4:-4, 4:-4] ** 2)
        found.append(10 * np.log10(255**2 / error))
    return found


def test_photographs_are_judged_as_in_papers(photos, capsys):
    report = scores(photos, "--weights", "random.h5")
    assert report["protocol"] == "paper" and report["images"] == 2 and report["images_enlarged"] == 0
    bicubic = report["methods"]["bicubic"]
    assert bicubic.keys() == {"psnr_y", "ssim_y", "scans"}
    assert bicubic["psnr_y"] == pytest.approx(np.mean(bicubic_on_y(sorted(photos.iterdir()))), abs=1e-6)
    printed = capsys.readouterr().out
    assert "2 images of photos, at their own size, x4" in printed and "PSNR of Y, dB" in printed
    assert "As in papers" in printed and "PSNR, dB" not in printed


def test_codes_are_judged_as_squares(here, monkeypatch):
    assert scores("images", "--weights", "generator.h5")["protocol"] == "squares"
    assert scores("images", "--weights", "generator.h5", "--protocol", "paper")["protocol"] == "paper"
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    assert scores("images", "--weights", "generator.h5")["protocol"] == "squares"


def test_small_blurred_codes_are_judged_as_squares_with_a_note(here, capsys):
    for path in Path("images").iterdir():
        with Image.open(path) as image:
            image.convert("L").resize((31, 31), Image.Resampling.BOX).save(path)
    assert scores("images", "--weights", "generator.h5")["protocol"] == "squares"
    assert "4 of 4 images. They\nlack detail, which favours interpolation: give sharp" in capsys.readouterr().out


def test_photographs_as_squares(photos):
    report = scores(photos, "--weights", "generator.h5", "--protocol", "squares")
    assert (report["protocol"], report["hr_size"]) == ("squares", 128)


def test_codes_at_their_own_size_scan(here, reader):
    codes = scores("images", "--weights", "generator.h5", "--protocol", "paper")["methods"]["nearest"]["scans"]["all"]
    assert codes["codes"] == 4


def test_small_versions_that_exist_are_taken(photos):
    """Whatever LR holds is enlarged: here versions by another filter, whose bicubic enlargement is worse."""
    own = scores(photos, "--weights", "random.h5")
    for folder, names in (("x4", "{}x4.png"), ("both", "{}_LR.png")):
        Path(folder).mkdir()
        for path in photos.iterdir():
            image = Image.open(path)
            lr = image.crop((0, 0, image.width // 4 * 4, image.height // 4 * 4))
            lr = lr.resize((lr.width // 4, lr.height // 4), Image.Resampling.BOX)
            lr.save(Path(folder) / names.format(path.stem))
            if folder == "both":
                shutil.copy(path, Path(folder) / f"{path.stem}_HR.png")
    given = scores(photos, "--weights", "random.h5", "--lr", "x4")
    assert given["images"] == 2 and given["methods"]["bicubic"] != own["methods"]["bicubic"]
    assert scores("both", "--weights", "random.h5", "--lr", "both")["methods"] == given["methods"]


def test_the_figure_shows_the_middle_of_photographs(photos):
    assert run(photos, "--weights", "generator.h5", "--picture", "figure.png") == 0
    with Image.open("figure.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 6 + 3 * (256 + 12)
    cat = np.asarray(Image.open("photos/cat.png"))[:300, :448]
    left, top = (112 - 64) // 2 * 4, (75 - 64) // 2 * 4
    middle = cat[top : top + 256, left : left + 256]
    start = 6 + 2 * (256 + 12) + 3
    rows = pixels[-2 * (256 + 12) :, start : start + 256]
    assert any(np.array_equal(rows[i : i + 256], middle) for i in range(len(rows) - 255))


def test_ssim_of_many_rows_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 255, (600, 40))
    b = a + rng.normal(0, 20, a.shape)
    expected = metrics.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


# ---------------------------------------------------------------- which images, at which size


def test_held_out_is_what_training_holds_out(here):
    training, held_out = split(find_images(Path("images")))
    for path in training:
        path.write_bytes(b"broken")
    report = scores("images", "--weights", "generator.h5", "--held-out")
    assert report["images"] == len(held_out) == 1 and report["skipped"] == {} and report["held_out"]


def test_limit_comes_before_held_out_as_in_training(here):
    for path in split(find_images(Path("images"), 3))[1]:
        path.write_bytes(b"broken")
    assert run("images", "--weights", "generator.h5", "--limit", 3, "--held-out") == 2
    assert scores("images", "--weights", "generator.h5", "--limit", 3)["images"] == 2


def test_files_of_other_kinds_are_counted_once(here, capsys):
    Path("images/a.xcf").touch()
    scores("images", "--weights", "generator.h5", "--limit", 1)
    assert capsys.readouterr().err == "tinysrgan: Left out in images: 1 .xcf.\n"


def test_images_that_cannot_be_read_are_named_and_left_out(here, capsys):
    Path("images/1101-v1.png").write_bytes(b"broken")
    Path("images/1101-v3.png").write_bytes(CODES[2].read_bytes()[:500])
    report = scores("images", "--weights", "generator.h5")
    assert report["images"] == 2
    assert sorted(report["skipped"]) == ["images/1101-v1.png", "images/1101-v3.png"]
    error = capsys.readouterr().err
    assert error.count("skipped images/1101-v1.png: is not an image") == 1
    assert error.count("skipped images/1101-v3.png: can't be read") == 1


def test_the_size_is_the_one_trained_for(here):
    net = Generator(blocks=1, filters=4, scale=2)
    save_generator(Path("small.h5"), net, {"hr_size": 64})
    save_generator(Path("unknown.h5"), net, {})
    run_state = {"step": 1, "data": "images", "options": {"hr_size": 48}}
    save(Path("checkpoint.h5"), {"generator": net, "discriminator": Discriminator(16, 2, 8)}, {}, run_state)
    sizes = {"small.h5": (64, 32), "unknown.h5": (128, 64), "checkpoint.h5": (48, 24)}
    for name, size in sizes.items():
        report = scores("images", "--weights", name, "--limit", 1)
        assert (report["hr_size"], report["lr_size"]) == size
    report = scores("images", "--weights", "small.h5", "--limit", 1, "--hr-size", 32)
    assert (report["hr_size"], report["lr_size"]) == (32, 16)


def test_the_shipped_generator_is_the_default(here, monkeypatch, capsys):
    for module in (upscaler_module, evaluate):
        monkeypatch.setattr(module, "WEIGHTS", here)
    assert run("images", "--limit", 1) == 2
    assert "generator that ships with tinysrgan is not at" in capsys.readouterr().err
    Path("generator.h5").rename(upscaler_module.SHIPPED)
    assert scores("images", "--limit", 1)["weights"] == {"SR": str(here / upscaler_module.SHIPPED)}


def test_memory_does_not_grow_with_the_images(tmp_path):
    for i in range(40):
        Image.effect_noise((300, 300), 50).save(tmp_path / f"{i:02d}.png")

    def peak(count: int) -> int:
        evaluation = Evaluation({"nearest": baselines(4)["nearest"]}, 4)
        pairs = ImagePairs(find_images(tmp_path)[:count], 128, 4)
        tracemalloc.start()
        try:
            evaluation.run(pairs, lambda count: None)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Pillow's decoded images, of which Pairs keeps some, are outside of this.
    peak(5)
    assert peak(40) < peak(5) + 5 * 128 * 128 * 3


# ---------------------------------------------------------------- what is shown and written


def test_the_table_for_people(here, reader, capsys):
    assert run("images", "--weights", "generator.h5") == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith("4 images of images, 32x32 to 128x128, on the CPU")
    assert lines[1] == "SR: generator.h5"
    assert lines[2].split() == ["nearest", "bicubic", "Lanczos", "SR"]
    assert max(map(len, lines[1:])) <= 80
    assert printed.err == ""
    assert Path("scores.json").read_text() == Path("figure.png").read_text() == "earlier"


def test_json_alone_on_standard_output(here, capsys):
    assert run("images", "--weights", "generator.h5", "--limit", 1, "--json", "-") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["images"] == 1 and "PSNR, dB" in printed.err
    assert not Path("-").exists()


def test_the_same_again_bit_for_bit(here):
    results = []
    for _ in range(2):
        assert run("images", "--weights", "random.h5", "--json", "scores.json", "--picture", "figure.png") == 0
        results.append([Path(name).read_bytes() for name in ("scores.json", "figure.png")])
    assert results[0] == results[1]


def framed(picture: np.ndarray, colour: tuple[int, int, int]) -> list[list[bool]]:
    """Which of the figure's images have a frame of this colour: a row of three for each row of images."""
    at = (picture == colour).all(axis=2)[-4 * (128 + 12) :]  # without the titles
    return [[bool(cell.any()) for cell in np.array_split(row, 3, axis=1)] for row in np.split(at, 4)]


def test_the_figure_has_a_code_of_every_version(reader):
    """LR, SR and the original; of eight codes the first four, since they have the versions 1 to 4."""
    images = {path.stem: Image.open(path).convert("RGB").resize((128, 128)) for path in CODES}
    results = iter([np.asarray(images[path.stem]) for path in CODES])
    evaluation = Evaluation({"nearest": baselines(4)["nearest"], "SR": lambda lr: next(results)}, 4)
    evaluation.run(ImagePairs(CODES[4:] + CODES[:4], 128, 4), lambda count: None)  # so every SR is another one's
    assert [text for _, _, text in evaluation.figure.rows] == [path.stem[:4] for path in CODES[4:]]
    picture = np.asarray(evaluation.figure.draw())
    assert picture.shape[1] == 6 + 3 * (128 + 12)
    assert framed(picture, GREEN) == [[False, False, True]] * 4
    assert framed(picture, RED) == [[True, True, False]] * 4


def test_the_figure_prefers_codes_and_low_versions(reader):
    evaluation = Evaluation({"SR": baselines(4)["nearest"]}, 4)
    small, large = np.zeros((32, 32, 3), np.uint8), np.zeros((128, 128, 3), np.uint8)
    for text, version in ((None, None), ("a", 7), ("b", 7), ("c", 2), (None, 1), ("d", 40), ("e", 3)):
        evaluation.record(evaluation.judge(Sample(small, large, text, version)))
    assert [text for _, _, text in evaluation.figure.rows] == ["c", "e", "a", "d"]


def test_the_figure_without_codes(colours):
    assert run(colours, "--weights", "random.h5", "--hr-size", 128, "--picture", "figure.png") == 0
    with Image.open("figure.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 6 + 3 * (128 + 12)
    assert not (pixels == GREEN).all(axis=2).any() and not (pixels == RED).all(axis=2).any()


def test_several_generators_stand_beside_each_other(here, capsys):
    weights = ["--weights", "generator.h5", "--weights", "random.h5"]
    report = scores("images", *weights, "--limit", 1, "--picture", "figure.png")
    assert list(report["methods"]) == ["nearest", "bicubic", "Lanczos", "SR 1", "SR 2"]
    assert report["weights"] == {"SR 1": "generator.h5", "SR 2": "random.h5"}
    assert report["methods"]["SR 1"] == report["methods"]["nearest"] != report["methods"]["SR 2"]
    assert "SR 2: random.h5\n" in capsys.readouterr().out
    with Image.open("figure.png") as picture:
        assert picture.width == 6 + 4 * (128 + 12)


def test_without_a_reader_it_says_so_and_goes_on(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    report = scores("images", "--weights", "generator.h5", "--limit", 2, "--picture", "figure.png")
    assert report["qr_reader"] is False and report["methods"]["SR"]["scans"] == {}
    assert "pip install zxing-cpp" in capsys.readouterr().err


def test_help_is_read_in_a_minute(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and len(text.split()) < 320 and len(text.splitlines()) <= 46
    for option in (
        "--weights",
        "--held-out",
        "--limit",
        "--protocol",
        "--lr",
        "--hr-size",
        "--json",
        "--picture",
        "--device",
        "Exit code",
    ):
        assert option in text


# ---------------------------------------------------------------- mistakes


def truncated(path: str, length: int = 900) -> None:
    Path(path).write_bytes(Path("generator.h5").read_bytes()[:length])


def change(path: str, **attributes) -> None:
    """A copy of the generator with another config or state."""
    shutil.copy("generator.h5", path)
    with h5py.File(path, "a") as file:
        for name, value in attributes.items():
            (file["generator"] if name == "config" else file).attrs[name] = value


def plant(path: str, **options) -> None:
    """A copy of the generator with another tensor in the place of its last bias."""
    shutil.copy("generator.h5", path)
    with h5py.File(path, "a") as file:
        del file["generator/tail/b"]
        if link := options.pop("link", None):
            file["generator/tail/b"] = link
        elif options:
            file.create_dataset("generator/tail/b", **options)


def config(**changes) -> str:
    return json.dumps(Generator(blocks=1, filters=4).config | changes)


def nothing() -> None: ...


# Each: what is prepared, the arguments beside DATA and --weights generator.h5 (or instead), words of the sentence.
W = "--weights"
BAD = {
    # images
    "no folder": (nothing, ["nowhere", W, "generator.h5"], "nowhere doesn't exist"),
    "a file as folder": (nothing, ["generator.h5", W, "generator.h5"], "is a file, not a folder"),
    "an empty folder": (lambda: Path("empty").mkdir(), ["empty", W, "generator.h5"], "empty holds no images"),
    "no images": (
        lambda: [Path("texts").mkdir(), Path("texts/a.txt").write_text("a")],
        ["texts", W, "generator.h5"],
        "texts holds no images",
    ),
    "a name too long": (nothing, ["x" * 5000, W, "generator.h5"], "name too long"),
    "one image to hold out of": (nothing, ["images", W, "generator.h5", "--limit", 1, "--held-out"], "at least 2"),
    "only broken images": (
        lambda: [path.write_bytes(b"x") for path in Path("images").iterdir()],
        ["images", W, "generator.h5"],
        "None of the 4 images can be used",
    ),
    "only cut images": (
        lambda: [path.write_bytes(path.read_bytes()[:300]) for path in Path("images").iterdir()],
        ["images", W, "generator.h5"],
        "None of the 4 images can be used",
    ),
    # weights
    "no weights": (nothing, ["images", W, "nowhere.h5"], "no file nowhere.h5"),
    "a folder as weights": (nothing, ["images", W, "images"], "images is a folder"),
    "an empty file": (lambda: Path("w").touch(), ["images", W, "w"], "w is not an HDF5 file"),
    "a picture as weights": (nothing, ["images", W, "images/1101-v1.png"], "not an HDF5 file"),
    "cut weights": (lambda: truncated("w"), ["images", W, "w"], "w is damaged or cut short"),
    "a header alone": (lambda: truncated("w", 96), ["images", W, "w"], "w is damaged or cut short"),
    "another's HDF5": (lambda: h5py.File("w", "w").close(), ["images", W, "w"], "not one that tinysrgan wrote"),
    "no generator": (
        lambda: save(Path("w"), {"discriminator": Discriminator(16, 2, 8)}, {}, {}),
        ["images", W, "w"],
        "w holds no generator",
    ),
    "a later version": (lambda: change("w", version=2), ["images", W, "w"], "format version 2"),
    "no JSON": (lambda: change("w", state="{"), ["images", W, "w"], "w is damaged"),
    "JSON without an end": (lambda: change("w", state="[" * 99999), ["images", W, "w"], "w is damaged"),
    "a vast net": (lambda: change("w", config=config(blocks=10**9)), ["images", W, "w"], "blocks is 1000000000"),
    "another net": (lambda: change("w", config=config(filters=5)), ["images", W, "w"], "doesn't fit the net"),
    "a scale of 3": (lambda: change("w", config=config(scale=3)), ["images", W, "w"], "scale is 3"),
    "a missing tensor": (lambda: plant("w"), ["images", W, "w"], "tail.b is missing"),
    "a wrong shape": (lambda: plant("w", data=np.ones(4, "f4")), ["images", W, "w"], "has shape (4,), not (3,)"),
    "a wrong type": (lambda: plant("w", data=np.ones(3, "f8")), ["images", W, "w"], "holds float64"),
    "texts": (lambda: plant("w", data=["a", "b", "c"]), ["images", W, "w"], "tail.b holds object"),
    "no numbers": (lambda: plant("w", data=np.full(3, np.nan, "f4")), ["images", W, "w"], "not all numbers are finite"),
    "a vast tensor": (lambda: plant("w", shape=2**50, dtype="f4"), ["images", W, "w"], "has shape (1125899906842624,)"),
    "a zip bomb": (
        lambda: plant("w", data=np.ones(3, "f4"), compression="gzip"),
        ["images", W, "w"],
        "not stored as one plain block",
    ),
    "another file's numbers": (
        lambda: plant("w", shape=3, dtype="f4", external=[("scores.json", 0, 12)]),
        ["images", W, "w"],
        "not stored as one plain block",
    ),
    "a link to another file": (
        lambda: plant("w", link=h5py.ExternalLink("generator.h5", "generator/tail/b")),
        ["images", W, "w"],
        "tail.b is missing",
    ),
    "a size as text": (
        lambda: change("w", state=json.dumps({"hr_size": "\x1b[2J" * 99})),
        ["images", W, "w"],
        "as w says",
    ),
    "an absurd size in the file": (
        lambda: change("w", state=json.dumps({"options": {"hr_size": 10**30}})),
        ["images", W, "w"],
        "from 20 to 2048",
    ),
    "generators of two scales": (
        lambda: save_generator(Path("w"), Generator(blocks=1, filters=4, scale=2), {}),
        ["images", W, "generator.h5", W, "w"],
        "generator.h5 x4, w x2",
    ),
    "the second generator missing": (nothing, ["images", W, "generator.h5", W, "w"], "no file w"),
    # sizes and numbers
    "not a multiple": (nothing, ["images", W, "generator.h5", "--hr-size", 130], "a multiple of the generator's scale"),
    "too small": (nothing, ["images", W, "generator.h5", "--hr-size", 16], "from 20 to 2048, not 16"),
    "too large": (nothing, ["images", W, "generator.h5", "--hr-size", 10**9], "from 20 to 2048"),
    "no size at all": (nothing, ["images", W, "generator.h5", "--hr-size", 0], "'0' is not a whole number"),
    "no number": (nothing, ["images", W, "generator.h5", "--limit", "few"], "'few' is not a whole number"),
    "no images to use": (nothing, ["images", W, "generator.h5", "--limit", -1], "'-1' is not a whole number"),
    # protocols
    "papers and squares": (nothing, ["images", W, "generator.h5", "--protocol", "paper", "--hr-size", 64], "leave out"),
    "LR of squares": (nothing, ["images", W, "generator.h5", "--lr", "images", "--protocol", "squares"], "leave out"),
    "no LR folder": (nothing, ["images", W, "generator.h5", "--lr", "small"], "small doesn't exist"),
    "no LR of an image": (nothing, ["images", W, "generator.h5", "--lr", "images"], "no 72x72 version of images/1101"),
    "JSON among LR": (
        lambda: Path("small").mkdir(),
        ["images", W, "generator.h5", "--lr", "small", "--json", "small/a.json"],
        "lies in small",
    ),
    # outputs
    "a folder as JSON": (nothing, ["images", W, "generator.h5", "--json", "images"], "images is a folder"),
    "JSON in no folder": (nothing, ["images", W, "generator.h5", "--json", "no/a.json"], "There is no folder no"),
    "JSON below a file": (nothing, ["images", W, "generator.h5", "--json", "scores.json/a"], "There is no folder"),
    "JSON over the weights": (nothing, ["images", W, "generator.h5", "--json", "generator.h5"], "is an input too"),
    "JSON over an image": (
        nothing,
        ["images", W, "generator.h5", "--limit", 1, "--json", "images/1101-v4.png"],
        "images/1101-v4.png is an input too",
    ),
    "JSON to a device": (nothing, ["images", W, "generator.h5", "--json", os.devnull], "is not a file"),
    "a picture over a linked image": (
        lambda: [shutil.copy(CODES[5], "other.png"), os.symlink("../other.png", "images/z.png")],
        ["images", W, "generator.h5", "--limit", 1, "--picture", "other.png"],
        "other.png is an input too",
    ),
    "a picture among the images": (nothing, ["images", W, "generator.h5", "--picture", "images/f"], "lies in images"),
    "a picture of no format": (nothing, ["images", W, "generator.h5", "--picture", "figure"], "as in .png"),
    "a picture of an odd format": (nothing, ["images", W, "generator.h5", "--picture", "f.xbm"], "let it end in .png"),
    "a picture as HDF5": (nothing, ["images", W, "generator.h5", "--picture", "f.h5"], "let it end in .png"),
    "a picture to standard output": (nothing, ["images", W, "generator.h5", "--picture", "-"], "as in .png"),
    "both in one file": (
        nothing,
        ["images", W, "generator.h5", "--json", "figure.png", "--picture", "./figure.png"],
        "give two names",
    ),
    # the rest of the command line
    "nothing": (nothing, [], "the following arguments are required: DATA"),
    "an unknown option": (nothing, ["images", "--weight-file", "generator.h5"], "unrecognized arguments"),
    "an option's value missing": (nothing, ["images", W], "expected one argument"),
    "an unknown device": (nothing, ["images", W, "generator.h5", "--device", "tpu"], "invalid choice: 'tpu'"),
    "two folders": (nothing, ["images", "images", W, "generator.h5"], "unrecognized arguments: images"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_sentence_and_nothing_is_lost(here, name, capsys):
    prepare, arguments, words = BAD[name]
    prepare()
    outputs = {"--json": "scores.json", "--picture": "figure.png"}
    extra = [word for option, path in outputs.items() if option not in arguments for word in (option, path)]
    before = contents()
    try:
        code = main([*map(str, arguments), *(extra if arguments else [])])
    except SystemExit as stop:  # argparse shows the usage first
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    *usage, error = (line for line in printed.err.splitlines() if not line.startswith("tinysrgan: skipped"))
    assert words in error and error.startswith(("tinysrgan: ", "python -m tinysrgan.evaluate: error: "))
    assert all(line.startswith(("usage: ", "    ")) for line in usage)
    assert "Traceback" not in printed.err and len(error) < 5200 and error.isprintable()
    assert printed.out == ""
    assert contents() == before


def test_numbers_that_overflow_are_one_sentence(here):
    """Without NumPy's warnings, which pytest would keep to itself."""
    net = Generator(blocks=1, filters=4)
    for parameter in net.parameters().values():
        parameter.value *= np.float32(1e30)
    save_generator(Path("w.h5"), net, {"hr_size": 32})
    done = python("-m", "tinysrgan.evaluate", "images", "--weights", "w.h5", "--json", "scores.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tinysrgan: The generator's values overflow on this image: its weights are no good.\n"
    assert Path("scores.json").read_text() == "earlier"


def test_a_gpu_that_is_not_there(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["images", "--weights", "generator.h5", "--device", "cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(
    "locked, words",
    [
        ("generator.h5", "generator.h5 can't be read: Permission denied"),
        ("images", "images can't be listed: Permission denied"),
        ("out", "out doesn't allow to write scores.json there"),
    ],
)
def test_no_permission(generators, monkeypatch, capsys, locked, words):
    folder = Path(tempfile.mkdtemp())  # whose parents anybody may pass, unlike pytest's
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    shutil.copy(generators / "generator.h5", folder)
    Path("generator.h5").chmod(0o644)
    for name, mode in (("images", 0o755), ("out", 0o777)):
        Path(name).mkdir()
        Path(name).chmod(mode)
    shutil.copy(CODES[0], "images")
    before = contents()
    Path(locked).chmod(0o555 if locked == "out" else 0)
    try:
        with without_privileges(monkeypatch):
            assert run("images", "--weights", "generator.h5", "--json", "out/scores.json") == 2
    finally:
        Path(locked).chmod(0o755)
        after = contents()
        shutil.rmtree(folder)
    assert words in capsys.readouterr().err
    assert after == before


FULL = """
import resource, signal, sys
from tinysrgan.evaluate import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
def test_a_disk_that_fills_up_keeps_the_old_files_and_the_table_is_still_shown(here):
    outputs = ["--json", "scores.json", "--picture", "figure.png"]
    before = contents()
    done = python("-c", FULL, "images", "--weights", "generator.h5", "--limit", "1", *outputs)
    assert done.returncode == 2
    assert done.stderr == (
        "tinysrgan: scores.json can't be written: File too large. What was there before is intact.\n"
    )
    assert "PSNR, dB" in done.stdout
    assert contents() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_standard_output_that_takes_nothing_still_leaves_the_files(here):
    command = ["-m", "tinysrgan.evaluate", "images", "--weights", "generator.h5", "--limit", "1"]
    with open("/dev/full", "w") as full:
        done = python(*command, "--json", "scores.json", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "tinysrgan: standard output can't be written: No space left on device.\n"
    assert json.loads(Path("scores.json").read_text())["images"] == 1


def test_ctrl_c_writes_nothing(here, monkeypatch, capsys):
    def press(count: int) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Evaluation, "run", lambda self, pairs, done, run=Evaluation.run: run(self, pairs, press))
    before, handler = (
        contents(),
        signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # a background job ignores it
    try:
        code = run("images", "--weights", "generator.h5", "--json", "scores.json", "--picture", "figure.png")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert code == 130
    assert capsys.readouterr().err.endswith("tinysrgan: stopped; nothing was written.\n")
    assert contents() == before
