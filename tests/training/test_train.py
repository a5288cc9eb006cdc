"""The command ``python -m tinysrgan.train``: its results, resumed runs, and its errors."""

import csv
import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tinysrgan import train as train_module
from tinysrgan.core.atomic_write import claimed
from tinysrgan.formats.checkpoint import load_generator, read_state
from tinysrgan.formats.keras.nets import load_keras_generator
from tinysrgan.ops.conv.dispatch import choose
from tinysrgan.train import main
from tinysrgan.training.arguments import parse
from tinysrgan.training.config import PRESETS, Options
from tinysrgan.training.schedule import learning_rate

ROOT = Path(__file__).parents[2]
CODES = sorted((ROOT / "data" / "qr").glob("*.png"))[:12]
SMALL = "--blocks 1 --filters 4 --batch-size 2 --max-images 12 --hr-size 32 --seed 3 --device cpu".split()


@pytest.fixture
def codes(tmp_path):
    """Copy a few QR codes of the starter set to a folder."""
    folder = tmp_path / "codes"
    folder.mkdir()
    for path in CODES:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def train(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return every array in an HDF5 file by its path."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def assert_same_state(a: Path, b: Path, net: str = "") -> None:
    """Assert that two files hold the same arrays, bit for bit; with ``net``, compare that net only."""
    left, right = ({name: array for name, array in arrays(path).items() if name.startswith(net)} for path in (a, b))
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.tobytes() == right[name].tobytes(), f"{name} differs"


def test_a_run_leaves_everything_behind(codes, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(codes, *SMALL, "--pretrain-steps", 12, "--steps", 3, "--save-every", 5, "--out", out) == 0
    assert {path.name for path in out.iterdir()} >= {"checkpoint.h5", "generator.h5", "log.csv", "losses.png"}
    assert (out / "generator-epoch-001.h5").exists() is False
    # 8 training images give 4 steps an epoch; every fifth epoch is step 20, beyond this run
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert pictures == [f"step-{step:06d}.png" for step in (5, 10, 12, 15)]
    with Image.open(out / "pictures" / pictures[-1]) as picture:
        assert min(picture.size) > 32 * 4
    with open(out / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["phase"]) for row in rows] == [
        ("5", "pretrain"),
        ("10", "pretrain"),
        ("12", "pretrain"),
        ("15", "gan"),
    ]
    assert float(rows[0]["pixel"]) > 0 and rows[0]["adversarial"] == ""
    assert 0 < float(rows[-1]["D(real)"]) < 1 and 0 < float(rows[-1]["D(fake)"]) < 1
    assert float(rows[-1]["psnr bicubic"]) > 0
    printed = capsys.readouterr().out
    assert "bicubic" in printed and "PSNR" in printed and str(out) in printed


def test_the_article_s_preset_saves_the_generator_every_five_epochs(codes, tmp_path):
    out = tmp_path / "run"
    article = ["--preset", "article", "--content-loss", "pixels", *SMALL]
    assert train(codes, *article, "--epochs", 5, "--out", out) == 0
    assert (out / "generator-epoch-005.h5").exists()
    assert_same_state(out / "generator-epoch-005.h5", out / "generator.h5")


def log(folder: Path) -> list[dict[str, str]]:
    """Return the rows of log.csv without the times."""
    with open(folder / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "images/s")} for row in csv.DictReader(file)]


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_the_log_after_many_kills_is_that_of_a_run_without_them(codes, tmp_path):
    """Kill a run at random moments, then between a checkpoint and its row; also stop it by Ctrl-C."""
    steps = ["--pretrain-steps", 20, "--steps", 33, "--save-every", 7]
    assert train(codes, *SMALL, *steps, "--out", tmp_path / "whole") == 0
    worst = "import os, signal, sys\nfrom tinysrgan import train\nfrom tinysrgan.training import run_log\n"
    in_the_middle = "run_log.RunLog._show = lambda self, done: os.kill(os.getpid(), signal.SIGKILL)\n"
    later = "step = train.pretrain_step\ncount = [0]\ndef slow(*a):\n    count[0] += 1\n"
    later += (
        "    if count[0] == 5: os.kill(os.getpid(), signal.SIGNAL)\n    return step(*a)\ntrain.pretrain_step = slow\n"
    )
    start = [codes, *SMALL, *steps, "--out", tmp_path / "killed"]
    stops = [later.replace("SIGNAL", "SIGINT"), in_the_middle, later.replace("SIGNAL", "SIGKILL"), in_the_middle]
    for i, stop in enumerate(stops):
        words = start if i == 0 else ["--resume", tmp_path / "killed", "--device", "cpu"]
        line = [sys.executable, "-c", f"{worst}{stop}sys.exit(train.main(sys.argv[1:]))", *map(str, words)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == (130 if "SIGINT" in stop else -signal.SIGKILL), done.stderr
    assert train("--resume", tmp_path / "killed") == 0
    assert log(tmp_path / "killed") == log(tmp_path / "whole")
    assert [row["step"] for row in log(tmp_path / "whole")][:6] == ["7", "10", "14", "20", "21", "28"]
    pictures = [sorted(path.name for path in (tmp_path / name / "pictures").iterdir()) for name in ("whole", "killed")]
    assert set(pictures[0]) <= set(pictures[1])


def test_a_run_that_was_killed_at_its_very_end_still_ends(codes, tmp_path, monkeypatch, capsys):
    def killed(self):
        raise KeyboardInterrupt

    run = tmp_path / "run"
    for line in ([codes, *SMALL, "--pretrain-steps", 2, "--steps", 0, "--out", run], ["--resume", run, "--steps", 1]):
        with monkeypatch.context() as patch:
            patch.setattr("tinysrgan.training.run_log.RunLog.finish", killed)
            assert train(*line) == 130
        assert train("--resume", run) == 0
        assert_same_state(run / "generator.h5", run / "checkpoint.h5", "generator")
        assert train("--resume", run) == 2 and "for more, give" in capsys.readouterr().err
    assert [row["step"] for row in log(run)] == ["2", "3"]


def test_a_run_that_is_done_says_which_option_gives_it_more(codes, tmp_path, capsys):
    """Also ``--steps``, which counts the adversarial steps alone; what was trained on pixels can't change any more."""
    run = tmp_path / "run"
    assert train(codes, *SMALL, "--pretrain-steps", 2, "--steps", 1, "--out", run) == 0
    for line, words in {
        ("--steps", 1): "2 steps on pixels and 1 adversarial ones: for more, give --steps above 1.\n",
        ("--epochs", 0): "1 adversarial ones: for more, give --epochs above 0.\n",
        ("--pretrain-steps", 3): "has done 3 steps, 2 of them on pixels, and --pretrain-steps 3 can't change that",
    }.items():
        assert train("--resume", run, *line) == 2
        assert words in capsys.readouterr().err
    assert train("--resume", run, "--pretrain-steps", 2, "--steps", 2) == 0


@pytest.mark.parametrize("name", ["my run", "-x"])
def test_what_a_message_says_of_resuming_is_what_a_shell_takes(codes, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    line = [codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, f"--out={name}"]
    assert train(*line) == 0 and train(*line) == 2
    said = re.search("go on with it by (.*), or give", capsys.readouterr().err)
    assert train(*shlex.split(said[1]), "--steps", 1) == 0


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_whoever_stops_reading_is_told_how_to_go_on(codes, tmp_path, monkeypatch, capsys):
    """As in ``train ... | head -1``; the reader goes at the first step."""
    run, (reader, writer) = tmp_path / "run", os.pipe()

    def step(*arguments, step=train_module.pretrain_step):
        os.close(reader)
        monkeypatch.undo()
        monkeypatch.setattr("sys.stdout", pipe)
        return step(*arguments)

    with monkeypatch.context() as patch, open(writer, "w") as pipe:
        patch.setattr("sys.stdout", pipe)
        patch.setattr(train_module, "pretrain_step", step)
        assert train(codes, *SMALL, "--pretrain-steps", 1, "--steps", 1, "--out", run) == 2
    said = capsys.readouterr().err
    assert f"can't be written: Broken pipe. Go on with `python -m tinysrgan.train --resume {run}`.\n" in said
    assert train("--resume", run) == 0 and [row["step"] for row in log(run)] == ["1", "2"]


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_a_run_needs_no_standard_error(codes, tmp_path):
    line = ["-m", "tinysrgan.train", codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", tmp_path / "run"]
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, *map(str, line)]
    assert subprocess.run(shell, cwd=ROOT, capture_output=True).returncode == 0
    assert (tmp_path / "run" / "generator.h5").exists()


def test_what_a_killed_run_left_half_written_goes_when_it_is_resumed(codes, tmp_path):
    run = tmp_path / "run"
    assert train(codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", run) == 0
    leftovers = [run / ".generator-epoch-005.h5.0123abcd.tmp", run / "pictures" / ".step-000011.png.22aec44b.tmp"]
    for path in leftovers:
        path.write_bytes(b"half")
    assert train("--resume", run, "--steps", 1) == 0
    assert not any(path.exists() for path in leftovers)


# ---------------------------------------------------------------- concurrent runs


def test_runs_that_start_together_have_a_folder_each(codes, tmp_path):
    line = [sys.executable, "-m", "tinysrgan.train", str(codes), *SMALL, "--pretrain-steps", "2", "--steps", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    for n in ("1", "2", "3"):
        assert (tmp_path / "runs" / n / "generator.h5").exists()
        assert sum(f"Everything is in {Path('runs') / n}:" in text for text in said) == 1


def test_a_mistake_leaves_no_empty_folder(codes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path in codes.iterdir():
        path.write_bytes(b"broken")
    assert train(codes, *SMALL) == 2
    assert "held-out" in capsys.readouterr().err and not Path("runs").exists()
    Path("mine").mkdir()
    assert train(codes, *SMALL, "--out", "mine") == 2 and Path("mine").is_dir()  # made by the user


@pytest.mark.skipif(os.name == "nt", reason="no locks on folders")
def test_two_processes_never_go_on_with_one_run(codes, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", run) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    with claimed(run):
        assert train("--resume", run, "--steps", 1) == 2
    assert capsys.readouterr().err == (
        f"tinysrgan: Another run is writing to {run}: wait for its end, or give another --out.\n"
    )
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert train("--resume", run, "--steps", 1) == 0


@pytest.mark.parametrize("out", [".", "sub"])
def test_a_run_inside_its_folder_of_images_never_trains_on_its_own_pictures(codes, monkeypatch, capsys, out):
    monkeypatch.chdir(codes)
    assert train(".", *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", out) == 0
    capsys.readouterr()
    assert train("--resume", out, "--steps", 1) == 0
    assert "2 made by training runs" in capsys.readouterr().err
    images = read_state(Path(out) / "checkpoint.h5")["images"]
    assert {*images["training"], *images["held_out"]} == {path.name for path in CODES}


@pytest.mark.parametrize("result", ["losses.png", "pictures/step-000001.png"])
def test_images_of_the_folder_are_never_replaced(codes, tmp_path, capsys, result):
    (codes / "pictures").mkdir()
    source = next(codes.glob("*.png"))
    source.rename(codes / result)
    before = {path: path.read_bytes() for path in codes.rglob("*") if path.is_file()}
    assert train(codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", codes) == 2
    assert f"holds a run's {Path(result).name} already: give another --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in codes.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_nor_by_a_link_in_the_run_s_folder(codes, tmp_path, capsys):
    run, image = tmp_path / "run", next(codes.glob("*.png"))
    assert train(codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", run) == 0
    before = image.read_bytes()
    for link in (os.symlink, os.link):
        link(image, run / "pictures" / "step-000002.png")
        assert train("--resume", run, "--steps", 1) == 2
        assert "step-000002.png is an input too, and inputs are never overwritten" in capsys.readouterr().err
        assert image.read_bytes() == before
        (run / "pictures" / "step-000002.png").unlink()


def test_four_steps_are_two_and_two_more(codes, tmp_path):
    """Training is bit for bit the same in the adversarial phase: nets, Adam states, batch statistics, augmentation."""
    constant = ["--preset", "article", "--content-loss", "pixels", *SMALL]
    assert train(codes, *constant, "--steps", 4, "--out", tmp_path / "whole") == 0
    assert train(codes, *constant, "--steps", 2, "--out", tmp_path / "parts") == 0
    assert train("--resume", tmp_path / "parts", "--steps", 4) == 0
    assert_same_state(tmp_path / "whole" / "checkpoint.h5", tmp_path / "parts" / "checkpoint.h5")
    with open(tmp_path / "parts" / "log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]


def test_a_generator_is_for_grey_until_it_is_trained_on_colour(codes, tmp_path):
    """Resumed runs, and runs that start from a generator, remember whether the net was trained on colour."""

    def grey(name: str) -> bool:
        return load_generator(tmp_path / name / "generator.h5").config["grey"]

    os.mkdir(tmp_path / "colours")
    for i in range(3):
        Image.new("RGB", (40, 40), (90, 100 + i, 90)).save(tmp_path / "colours" / f"{i}.png")
    line = [*SMALL, "--pretrain-steps", 1, "--steps", 0]
    assert train(codes, *line, "--out", tmp_path / "grey") == 0
    begin = ["--init-from", tmp_path / "grey" / "generator.h5"]
    assert train(tmp_path / "colours", *line, *begin, "--out", tmp_path / "colour") == 0
    assert grey("grey") and not grey("colour")
    begin = ["--init-from", tmp_path / "colour" / "generator.h5"]
    assert train(codes, *line, *begin, "--out", tmp_path / "both") == 0
    assert train("--resume", tmp_path / "grey", "--steps", 1) == 0
    assert train("--resume", tmp_path / "both", "--steps", 1) == 0
    assert grey("grey") and not grey("both")


@pytest.mark.skipif(os.name == "nt", reason="Windows can't send Ctrl-C to one process")
def test_fresh_codes_go_on_as_if_never_stopped(codes, tmp_path):
    """Use binary cross-entropy, whose net ends in tanh; the folder's images are then all held out."""
    options = "--synthetic --augment hard --pixel-loss bce --pretrain-steps 2 --save-every 2".split()
    assert train(codes, *SMALL, *options, "--hr-size", 128, "--steps", 2, "--out", tmp_path / "whole") == 0
    assert train(codes, *SMALL, *options, "--hr-size", 128, "--steps", 1, "--out", tmp_path / "parts") == 0
    assert train("--resume", tmp_path / "parts", "--steps", 2) == 0
    assert_same_state(tmp_path / "whole" / "checkpoint.h5", tmp_path / "parts" / "checkpoint.h5")
    assert load_generator(tmp_path / "whole" / "generator.h5").config["output"] == "tanh"


@pytest.mark.parametrize(
    "name, values, config",
    [
        ("archives3/mixed.keras", "signed:tanh", {"upscale": "nearest", "output": "tanh"}),
        ("archives3/edsr.keras", "unit", {"norm": False, "value_range": "unit:unit"}),
        ("keras2/krasserm_model.h5", "unit:tanh", {"value_range": "unit:signed", "output": "tanh"}),
    ],
)
def test_a_run_may_begin_with_keras_generator(codes, tmp_path, name, values, config):
    """The run's own net has its form and its range; it is resumed without the file."""
    archive, _, file = name.partition("/")
    keras = Path(__file__).parents[1] / "formats" / "keras_files" / f"{archive}.zip"
    zipfile.ZipFile(keras).extract(file, tmp_path)
    source = load_keras_generator(tmp_path / file, values)
    still = "--batch-size 2 --hr-size 32 --seed 4 --pretrain-steps 1 --steps 0 --pretrain-learning-rate 0".split()
    begin = ["--init-from", tmp_path / file, "--value-range", values, "--device", "cpu"]
    assert train(codes, *still, *begin, "--out", tmp_path / "run") == 0
    result = load_generator(tmp_path / "run" / "generator.h5")
    assert config.items() <= result.config.items() and result.config == source.config
    for path, parameter in source.parameters().items():
        assert (parameter.value == result.parameters()[path].value).all(), path
    (tmp_path / file).unlink()
    assert train("--resume", tmp_path / "run", "--pretrain-steps", 2, "--steps", 1, "--device", "cpu") == 0


def test_a_run_may_begin_with_a_trained_generator(codes, tmp_path):
    """The net's options may be omitted; with a learning rate of 0, its weights stay the same."""
    net = [*SMALL, "--upscale", "nearest", "--pixel-loss", "bce"]
    assert train(codes, *net, "--pretrain-steps", 2, "--steps", 0, "--out", tmp_path / "first") == 0
    still = "--batch-size 2 --hr-size 32 --max-images 12 --seed 4 --pretrain-steps 1 --steps 0".split()
    still += ["--pretrain-learning-rate", 0]
    for i, file in enumerate(["generator.h5", "checkpoint.h5"]):
        begin = ["--init-from", tmp_path / "first" / file, "--out", tmp_path / str(i)]
        assert train(codes, *still, *begin) == 0
        first, second = (load_generator(tmp_path / name / "generator.h5") for name in ("first", str(i)))
        assert second.config == first.config
        for name, parameter in first.parameters().items():
            assert (parameter.value == second.parameters()[name].value).all(), name
        moments = arrays(tmp_path / str(i) / "checkpoint.h5")
        assert all(moments[name].any() for name in moments if name.startswith("adam_generator/m/tail"))
    # the new run also works without that file
    shutil.rmtree(tmp_path / "first")
    assert train("--resume", tmp_path / "1", "--steps", 1) == 0


def test_exact_is_saved_with_a_run_and_ends_with_the_command(codes, tmp_path, monkeypatch):
    """A run with --exact uses direct convolutions, also when resumed; a run without it uses Winograd's."""
    x, shape = np.zeros((1, 32, 32, 32), np.float32), (3, 3, 32, 32)
    used = []
    for name in ("pretrain_step", "adversarial_step"):
        step = getattr(train_module, name)
        monkeypatch.setattr(
            train_module, name, lambda *args, step=step: used.append(choose(x, shape, 1)) or step(*args)
        )
    assert train(codes, *SMALL, "--exact", "--pretrain-steps", 1, "--steps", 0, "--out", tmp_path / "exact") == 0
    assert train(codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", tmp_path / "fast") == 0
    assert train("--resume", tmp_path / "exact", "--steps", 1) == 0
    assert used == ["im2col_blocked", "winograd", "im2col_blocked"]
    assert choose(x, shape, 1) == "winograd"


def test_a_checkpoint_from_before_an_option_goes_on_as_it_was_made(codes, tmp_path):
    """A missing option has its default, except the optimizer: it was Adam before the option existed."""
    out = tmp_path / "run"
    assert train(codes, *SMALL, "--optimizer", "adam", "--pretrain-steps", 1, "--steps", 0, "--out", out) == 0
    with h5py.File(out / "checkpoint.h5", "r+") as file:
        state = json.loads(file.attrs["state"])
        del state["options"]["pixel_loss"], state["options"]["optimizer"]
        file.attrs["state"] = json.dumps(state)
    assert train("--resume", out, "--steps", 1) == 0
    with h5py.File(out / "checkpoint.h5") as file:
        options = json.loads(file.attrs["state"])["options"]
    assert options["optimizer"] == "adam" and options["pixel_loss"] == "mse"


def test_a_checkpoint_of_an_earlier_version_goes_on(codes, tmp_path, monkeypatch):
    """Commit 574f20d wrote the checkpoint, with other option names: pixel_loss "entropy", limit, pretrain_rate, ..."""
    (tmp_path / "run").mkdir()
    with gzip.open(Path(__file__).with_name("checkpoint-574f20d.h5.gz")) as file:
        (tmp_path / "run" / "checkpoint.h5").write_bytes(file.read())
    before = arrays(tmp_path / "run" / "checkpoint.h5")
    assert train("--resume", tmp_path / "run", codes, "--steps", 1) == 0  # only the final results are missing
    assert_same_state(tmp_path / "run" / "generator.h5", tmp_path / "run" / "checkpoint.h5", "generator")
    assert train("--resume", tmp_path / "run", codes, "--steps", 3, "--device", "cpu") == 0
    state = read_state(tmp_path / "run" / "checkpoint.h5")
    options = Options(**state["options"])
    assert state["step"] == 4 and options.pixel_loss == "bce" and options.content_loss == "pixels"
    assert (options.max_images, options.synthetic, options.pretrain_learning_rate) == (5, False, 2e-3)
    after = arrays(tmp_path / "run" / "checkpoint.h5")
    assert after.keys() == before.keys()
    assert any((after[name] != before[name]).any() for name in after if name.startswith("generator/"))


def test_old_spellings_of_options_are_accepted(codes, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    old = "--pixel-loss entropy --content pixels --limit 5 --pretrain-rate 1e-3 --fresh-codes --augment hard".split()
    new = "--pixel-loss bce --content-loss pixels --max-images 5 --pretrain-learning-rate 1e-3 --synthetic".split()
    for out, options in ((first, old), (second, [*new, "--augment", "hard"])):
        paths, parsed = parse([str(codes), *options, "--out", str(out)])
        assert paths.out == out
        assert parsed == Options(
            pixel_loss="bce", max_images=5, pretrain_learning_rate=1e-3, synthetic=True, augment="hard"
        )
    assert parse([str(codes), "--vgg", "v.h5"])[0].vgg_weights == Path("v.h5")
    line = [codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out"]
    assert train(*line, first) == 0
    paths, _ = parse(["--generator", str(first / "generator.h5"), str(codes), "--out", str(second)])
    assert paths.init_from == first / "generator.h5"


@pytest.fixture
def photos(tmp_path):
    """Six photographs, 160 x 120 pixels, of two scenes."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee", "chelsea"):
        image = Image.fromarray(getattr(data, name)())
        for i in range(3):
            image.crop((60 * i, 50, 60 * i + 160, 170)).save(folder / f"{name}_crop{i}.png")
    return folder


PHOTO = "--blocks 1 --filters 4 --batch-size 2 --seed 3 --device cpu --hr-size 32 --save-every 2".split()


@pytest.mark.parametrize("preset", ["photo", "paper"])
def test_a_run_on_photographs_and_one_that_was_stopped(photos, tmp_path, capsys, preset):
    line = [photos, "--preset", preset, *PHOTO, "--content-loss", "pixels", "--steps", 0]
    for run, steps in (("whole", 4), ("stopped", 2)):
        assert train(*line, "--pretrain-steps", steps, "--out", tmp_path / run) == 0
    assert train("--resume", tmp_path / "stopped", "--pretrain-steps", 4, "--device", "cpu") == 0
    printed = capsys.readouterr()
    assert "PSNR of Y, dB  SSIM of Y" in printed.out and "give --preset" not in printed.err
    assert "are of 2 sources" in printed.err
    if preset == "paper":  # whose learning rate is constant
        assert_same_state(tmp_path / "whole" / "checkpoint.h5", tmp_path / "stopped" / "checkpoint.h5")
    with Image.open(tmp_path / "whole" / "pictures" / "step-000004.png") as picture:
        assert picture.width == 6 + 4 * (160 + 12)  # whole photographs, not squares


def test_photographs_and_the_default_preset_are_one_sentence_that_names_the_other(photos, codes, tmp_path, capsys):
    line = [*SMALL, "--pretrain-steps", 1, "--steps", 0, "--out"]
    assert train(photos, *line, tmp_path / "a") == 0
    said = f"tinysrgan: {photos} holds photographs, and the preset qr is for QR codes: give --preset photo.\n"
    assert capsys.readouterr().err.count(said) == 1
    assert train(codes, *line, tmp_path / "b") == 0
    assert "photographs" not in capsys.readouterr().err
    for path in codes.iterdir():
        with Image.open(path) as image:
            image.convert("L").resize((31, 31), Image.Resampling.BOX).save(path)
    assert train(codes, *line, tmp_path / "c") == 0
    err = capsys.readouterr().err
    assert "holds photographs" not in err
    assert f"Most images of {codes} are smaller than 32x32 and are enlarged: give the sharp originals" in err


def test_presets_name_options_with_allowed_values():
    allowed = {option.name: option.metadata["allowed"] for option in fields(Options)}
    for preset in [asdict(Options()), *PRESETS.values()]:
        for name, value in preset.items():
            if callable(allowed[name]) and value is not None:
                assert allowed[name](str(value)) == value, name
            elif allowed[name] is not None and not callable(allowed[name]):
                assert value in allowed[name], name


def test_a_new_loss_term_logs_itself(codes, tmp_path, monkeypatch):
    step = train_module.generator_step
    monkeypatch.setattr(train_module, "generator_step", lambda *args: step(*args) | {"total variation": np.float32(2)})
    out = tmp_path / "run"
    steps = ["--pretrain-steps", 10, "--steps", 10, "--save-every", 15]
    assert train(codes, *SMALL, *steps, "--out", out) == 0
    assert train("--resume", out, "--steps", 11) == 0
    assert [(row["step"], row["total variation"]) for row in log(out)] == [
        ("10", ""),
        ("15", "2"),
        ("20", "2"),
        ("21", "2"),
    ]


def test_a_moving_average_is_what_a_run_shows_and_keeps(codes, tmp_path):
    """A resumed run is bit for bit the same; without the option, or with a decay of 0, nothing changes."""
    line = [codes, *SMALL, "--pretrain-steps", 2, "--save-every", 1]
    for name, options in (("off", []), ("whole", ["--ema", 0.9]), ("parts", ["--ema", 0.9])):
        steps = 1 if name == "parts" else 3
        assert train(*line, *options, "--steps", steps, "--out", tmp_path / name) == 0
    assert train("--resume", tmp_path / "parts", "--steps", 3) == 0
    whole, parts, off = (tmp_path / name / "checkpoint.h5" for name in ("whole", "parts", "off"))
    assert_same_state(whole, parts, "average")
    assert_same_state(whole, parts, "adam_generator")
    average, kept = arrays(whole), arrays(tmp_path / "whole" / "generator.h5")
    for name, array in kept.items():
        assert array.tobytes() == average[name.replace("generator/", "average/")].tobytes()
    assert any((array != average[name]).any() for name, array in kept.items())
    # Training does not use the average.
    assert not [name for name in arrays(off) if name.startswith("average")]
    for name, array in arrays(off).items():
        if name.startswith("generator/"):
            assert array.tobytes() == average[name].tobytes(), name
    assert [row["psnr"] for row in log(tmp_path / "whole")] != [row["psnr"] for row in log(tmp_path / "off")]
    assert log(tmp_path / "whole") == log(tmp_path / "parts")
    assert train("--resume", tmp_path / "whole", "--ema", 0.5, "--steps", 4) == 2


def test_ctrl_c_saves_and_the_run_goes_on_as_if_nothing_had_been(codes, tmp_path):
    steps = ["--pretrain-steps", "40", "--steps", "40"]
    command = [sys.executable, "-m", "tinysrgan.train", str(codes), *SMALL, *steps]
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], cwd=ROOT, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr

    stopped = subprocess.Popen(
        [*command, "--save-every", "1", "--out", str(tmp_path / "stopped")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    while not (tmp_path / "stopped" / "checkpoint.h5").exists():
        assert stopped.poll() is None
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    output = stopped.communicate(timeout=60)[0]
    assert stopped.returncode == 130, output
    assert f"--resume {tmp_path / 'stopped'}" in output
    assert not (tmp_path / "stopped" / "generator.h5").exists()

    assert train("--resume", tmp_path / "stopped", "--save-every", 100) == 0
    assert_same_state(tmp_path / "whole" / "checkpoint.h5", tmp_path / "stopped" / "checkpoint.h5")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(codes, tmp_path, capsys):
    out = tmp_path / "run"
    few = ["--pretrain-steps", 2, "--steps", 20, "--save-every", 1]
    assert train(codes, *SMALL, *few, "--learning-rate", 1e30, "--out", out) == 2
    error = capsys.readouterr().err
    assert "not finite" in error and "step " in error and "Traceback" not in error
    assert all(np.isfinite(array).all() for array in arrays(out / "checkpoint.h5").values())
    assert not (out / "generator.h5").exists()


def offline(monkeypatch, tmp_path):
    """Simulate a computer without network and without weights."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tinysrgan.formats.vgg19_weights.WEIGHTS", tmp_path / "weights")


def test_offline_a_preset_that_wants_vgg_trains_on_pixels_and_says_so(codes, tmp_path, capsys, monkeypatch):
    offline(monkeypatch, tmp_path)
    assert train(codes, "--preset", "article", *SMALL, "--steps", 1, "--out", tmp_path / "run") == 0
    assert capsys.readouterr().err.count("SRGAN-MSE") == 1
    # a run that started without VGG19 resumes without it
    assert train("--resume", tmp_path / "run", "--steps", 2) == 0


def test_offline_vgg_asked_for_by_name_is_an_error(codes, tmp_path, capsys, monkeypatch):
    offline(monkeypatch, tmp_path)
    assert train(codes, *SMALL, "--content-loss", "block3_conv4", "--steps", 1, "--out", tmp_path / "run") == 2
    assert "weights" in capsys.readouterr().err
    assert train(codes, *SMALL, "--vgg-weights", tmp_path / "no.h5", "--steps", 1, "--out", tmp_path / "run") == 2
    assert "no.h5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_vgg_is_used_where_it_is(codes, tmp_path):
    vgg = ROOT.parent / "shared" / "data" / "vgg19" / "vgg19_block1_to_block3_imagenet.h5"
    if not vgg.exists():
        pytest.skip("VGG19's weights are not at hand")
    out = tmp_path / "run"
    assert train(codes, *SMALL, "--pretrain-steps", 0, "--steps", 1, "--vgg-weights", vgg, "--out", out) == 0
    with open(out / "log.csv", newline="") as file:
        content = float(next(csv.DictReader(file))["content"])
    assert train("--resume", out, "--steps", 2) == 0  # the run knows the path of VGG19
    assert content > 10  # features of untrained images differ by more on VGG's scale; pixels could differ by 4 at most


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere"]),
        (["README.md"], ["README.md"]),
        (["data/qr", "--max-images", "1"], ["2"]),
        (["data/qr", "--hr-size", "30"], ["--hr-size 30", "--scale 4"]),
        (["--resume", "nowhere"], ["nowhere"]),
        (["data/qr", "--resume", "README.md"], ["README.md"]),
        (["data/qr", "--device", "cuda"], ["--device cpu"]),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    if "cuda" in arguments:
        monkeypatch.setitem(sys.modules, "cupy", None)
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert error.startswith("tinysrgan: ") and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(codes, tmp_path, capsys):
    out = tmp_path / "run"
    command = [codes, *SMALL, "--pretrain-steps", 1, "--steps", 0, "--out", out]
    assert train(*command) == 0
    before = (out / "checkpoint.h5").read_bytes()
    assert train(*command) == 2
    assert "--resume" in capsys.readouterr().err
    assert train("--resume", out) == 2
    assert "--steps" in capsys.readouterr().err
    assert train("--resume", out, "--filters", 8, "--steps", 2) == 2
    assert "--filters" in capsys.readouterr().err
    assert (out / "checkpoint.h5").read_bytes() == before


def test_a_broken_image_is_named_and_training_goes_on(codes, tmp_path, capsys):
    for i in range(3):
        (codes / f"broken{i}.png").write_bytes(b"not a picture")
    assert train(codes, *SMALL, "--max-images", 15, "--pretrain-steps", 8, "--steps", 0, "--out", tmp_path / "run") == 0
    printed = "".join(capsys.readouterr())
    for i in range(3):
        assert printed.count(f"broken{i}.png") >= 1
    assert printed.count("skipped") == 3


def test_learning_rate_schedules():
    cosine = Options(pretrain_steps=1000, steps=100, pretrain_learning_rate=1e-3, learning_rate=1e-4)
    assert learning_rate(0, cosine) == pytest.approx(1e-3 / 50)
    assert learning_rate(500, cosine) == pytest.approx(5e-4)
    assert learning_rate(999, cosine) < 1e-8
    assert learning_rate(1050, cosine) == pytest.approx(5e-5)
    paper = Options(pretrain_steps=10, steps=10, pretrain_learning_rate=1e-4, learning_rate=1e-4, decay="step")
    assert [learning_rate(step, paper) for step in (0, 9, 10, 14, 15, 19)] == pytest.approx([1e-4] * 4 + [1e-5] * 2)
