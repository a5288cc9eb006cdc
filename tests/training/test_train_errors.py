"""User errors of ``python -m tinysrgan.train``: one sentence, exit code 2, and no file is lost."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import h5py
import mistakes
import numpy as np
import pytest
from mistakes import check_sentence, contents, python, without_privileges
from PIL import Image
from test_checkpoint import circle, compressed, external_link, external_storage, texts, vast, virtual
from test_upscale import png

from tinysrgan.data.division import split
from tinysrgan.data.listing import find_images
from tinysrgan.formats import vgg19_weights
from tinysrgan.formats.checkpoint import save_generator
from tinysrgan.models import Generator
from tinysrgan.train import main
from tinysrgan.training.run_log import RunLog

ROOT = Path(__file__).parents[2]
CODES = sorted((ROOT / "data" / "qr").glob("*.png"))[:6]

SMALL = "--blocks 1 --filters 2 --batch-size 2 --hr-size 16 --device cpu".split()
BRIEF = ["--pretrain-steps", "1", "--steps", "0"]
NEW = ["images", "--out", "new", *SMALL, *BRIEF]
AGAIN = ["--resume", "run", "--steps", "1", "--device", "cpu"]


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """Make a folder with six images and a run of one step in run/, once for all tests."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "images").mkdir()
    for path in CODES:
        with Image.open(path) as image:
            image.resize((40, 40)).save(folder / "images" / path.name)
    assert main([str(folder / "images"), "--out", str(folder / "run"), *SMALL, *BRIEF]) == 0
    return folder


@pytest.fixture
def here(tmp_path, template, monkeypatch):
    """Change to a copy of the template, in which the run has a relative path to its images; no VGG19, no network."""
    place = tmp_path / "here"
    shutil.copytree(template, place)
    monkeypatch.chdir(place)
    says(data="images")
    monkeypatch.setattr(vgg19_weights, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return place


run, refuse = partial(mistakes.run, main), partial(mistakes.refuse, main)


# ---------------------------------------------------------------- preparations


def nothing() -> None: ...


def images(content: bytes):
    """Return a function that replaces the content of all images."""
    return lambda: [path.write_bytes(content) for path in Path("images").iterdir()]


def cut_images() -> None:
    for path in Path("images").iterdir():
        path.write_bytes(path.read_bytes()[:100])


def small_images() -> None:
    for path in Path("images").iterdir():
        Image.new("L", (15, 40)).save(path)


def pipes() -> None:
    for path in Path("images").iterdir():
        path.unlink()
        os.mkfifo(path)


def one_image() -> None:
    for path in sorted(Path("images").iterdir())[1:]:
        path.unlink()


def no_images() -> None:
    shutil.rmtree("images")
    Path("images").mkdir()
    Path("images/notes.txt").write_text("hello")


def folder(name: str):
    return lambda: Path(name).mkdir()


def text(name: str):
    return lambda: Path(name).write_text("hello")


def checkpoint(content: bytes):
    return lambda: Path("run/checkpoint.h5").write_bytes(content)


def cut_checkpoint(length: int):
    return lambda: os.truncate("run/checkpoint.h5", length)


def edited(edit):
    """Return a function that opens the checkpoint and calls ``edit`` on it."""

    def apply() -> None:
        with h5py.File("run/checkpoint.h5", "a") as file:
            edit(file)

    return apply


def says(options=None, **changes) -> None:
    """Change the state in the checkpoint; None deletes an entry."""
    with h5py.File("run/checkpoint.h5", "a") as file:
        state = json.loads(file.attrs["state"]) | changes
        state["options"] |= options or {}
        file.attrs["state"] = json.dumps({name: value for name, value in state.items() if value is not None})


def state(**changes):
    return lambda: says(**changes)


def with_bias(plant):
    """Return a function that calls ``plant`` to replace the generator's last bias, which has three elements."""

    def edit(file):
        with h5py.File("other.h5", "w") as other:
            other["x"] = np.ones(3, np.float32)
        del file["generator/tail/b"]
        plant(file, "generator/tail/b", Path().resolve())

    return edited(edit)


def array(value):
    return with_bias(lambda file, name, folder: file.create_dataset(name, data=np.array(value)))


def other_group(file) -> None:
    del file["discriminator"]
    file["discriminator"] = h5py.ExternalLink("other.h5", "discriminator")


def deep(file) -> None:
    for _ in range(40):
        file = file.create_group("deeper")


def without(name: str):
    return edited(lambda file: file.pop(name))


def header(**attributes):
    return edited(lambda file: file.attrs.update(**attributes))


def vgg(**arrays):
    """Return a function that writes a Keras file of these layers."""

    def make() -> None:
        with h5py.File("vgg.h5", "w") as file:
            for layer, shapes in arrays.items():
                for i, shape in enumerate(shapes):
                    file[f"{layer}/{i}"] = np.zeros(shape, np.float32)

    return make


def generator_only() -> None:
    save_generator(Path("generator.h5"), Generator(1, 2), {})


def foreign_file() -> None:
    with h5py.File("foreign.h5", "w") as file:
        file["conv/kernel"] = np.zeros((9, 9, 3, 2), np.float32)


def second_run() -> None:
    shutil.copytree("run", "second")


def only_generator_left() -> None:
    shutil.copytree("run", "new")
    os.remove("new/checkpoint.h5")


NAMED = ["images", "--out", "new", "--device", "cpu"]
VGG = [*NEW, "--vgg-weights", "vgg.h5", "--content-loss", "block1_conv2"]

# Preparation, arguments, words of the sentence.
BAD = {
    # folders
    "nothing at all": (nothing, [], "which folder of images?"),
    "no folder": (nothing, ["nowhere", *NEW[1:]], "nowhere doesn't exist: give a folder of images"),
    "a file": (text("notes"), ["notes", *NEW[1:]], "notes is a file, not a folder"),
    "an empty folder": (folder("empty"), ["empty", *NEW[1:]], "empty holds no images"),
    "no images": (no_images, NEW, "images holds no images"),
    "one image": (one_image, NEW, "at least 2 images"),
    "one image by --max-images": (nothing, [*NEW, "--max-images", 1], "at least 2 images"),
    "empty images": (images(b""), NEW, "None of the held-out images can be"),
    "texts as images": (images(b"hello"), NEW, "None of the held-out images can be"),
    "HDF5 as images": (images(b"\x89HDF\r\n\x1a\n" + bytes(99)), NEW, "None of the held-out images can be"),
    "cut images": (cut_images, NEW, "None of the held-out images can be"),
    "vast images": (images(png(60_000, 60_000)), NEW, "None of the held-out images can be"),
    "images without rows": (images(png(30, 30)), NEW, "None of the held-out images can be"),
    "small images": (small_images, NEW, "None of the held-out images can be"),
    "pipes as images": (pipes, NEW, "None of the held-out images can be"),
    "a name too long": (nothing, ["x" * 5000, *NEW[1:]], "name too long"),
    "a circle of links": (lambda: os.symlink("circle", "circle"), ["circle", *NEW[1:]], "circle"),
    "two folders": (nothing, [*NEW, "images"], "unrecognized arguments: images"),
    # options
    "an unknown option": (nothing, [*NEW, "--colour"], "unrecognized arguments: --colour"),
    "an option without its value": (nothing, [*NAMED, "--steps"], "--steps: expected one argument"),
    "an unknown device": (nothing, [*NEW, "--device", "tpu"], "invalid choice: 'tpu'"),
    "an unknown preset": (nothing, [*NEW, "--preset", "huge"], "invalid choice: 'huge'"),
    "an unknown layer": (nothing, [*NEW, "--content-loss", "block9_conv9"], "invalid choice: 'block9_conv9'"),
    "a scale of 3": (nothing, [*NEW, "--scale", 3], "invalid choice: 3"),
    "a scale of none": (nothing, [*NEW, "--scale", "x"], "invalid int value: 'x'"),
    "no multiple": (nothing, [*NAMED, "--hr-size", 30], "--hr-size 30 is not a multiple of --scale 4"),
    "a side too small": (nothing, [*NAMED, "--hr-size", 8], "8"),
    "a vast side": (nothing, [*NAMED, "--hr-size", 1_000_000], "--hr-size: '1000000' is not a whole number, from"),
    "a vast batch": (nothing, [*NAMED, "--batch-size", 10**9], "--batch-size: '1000000000' is not a whole number"),
    "steps beyond numbers": (nothing, [*NAMED, "--steps", "9" * 400], "--steps"),
    "a number beyond Python's": (nothing, [*NAMED, "--seed", "9" * 5000], "--seed"),
    "a rate that overflows": (nothing, [*NAMED, "--learning-rate", "1e999"], "--learning-rate: '1e999'"),
    **{
        f"{option} {value}": (nothing, [*NAMED, option, value], f"{option}: '{value}' is not a whole number")
        for option in ("--hr-size", "--max-images", "--blocks", "--filters", "--batch-size", "--save-every")
        for value in ("0", "-1", "many", "nan", "1.5")
    },
    **{
        f"{option} {value}": (nothing, [*NAMED, option, value], f"{option}: '{value}' is not a whole number")
        for option in ("--pretrain-steps", "--steps", "--epochs", "--seed")
        for value in ("-1", "many", "inf")
    },
    **{
        f"{option} {value}": (nothing, [*NAMED, option, value], f"{option}: '{value}' is not a number")
        for option in ("--pretrain-learning-rate", "--learning-rate", "--adversarial-weight", "--ema")
        for value in ("-1", "many", "nan", "inf")
    },
    "an average that never moves": (nothing, [*NAMED, "--ema", 1], "--ema: '1' is not a number, 0 or more and less"),
    "a bad value under an old name": (nothing, [*NAMED, "--limit", 0], "--limit: '0' is not a whole number"),
    "65 blocks": (nothing, [*NAMED, "--blocks", 65], "--blocks: '65' is not a whole number, from 1 to 64"),
    "513 filters": (nothing, [*NAMED, "--filters", 513], "--filters: '513' is not a whole number, from 1 to 512"),
    "no steps": (nothing, ["images", "--out", "new", *SMALL, "--pretrain-steps", 0, "--steps", 0], "--steps"),
    # contradictory options
    "epochs and steps": (nothing, [*NEW, "--epochs", 1], "--epochs and --steps say the same thing"),
    "weights that nothing uses": (nothing, [*VGG, "--content-loss", "pixels"], "--content-loss pixels doesn't use it"),
    "mirrored codes": (nothing, [*NEW, "--synthetic", "--flip"], "without --flip"),
    "synthetic crops": (nothing, [*NEW, "--synthetic", "--augment", "crops"], "leave --synthetic and --flip out"),
    "codes turned as photos": (nothing, [*NEW, "--synthetic", "--augment", "article"], "take --augment hard"),
    # checkpoints to go on from
    "no run": (nothing, ["--resume", "nowhere"], "no file nowhere"),
    "an empty folder as run": (folder("empty"), ["--resume", "empty"], "no file empty/checkpoint.h5"),
    "images as run": (nothing, ["--resume", "images"], "no file images/checkpoint.h5"),
    "a text as run": (text("notes"), ["--resume", "notes"], "notes is not an HDF5 file"),
    "a pipe as run": (lambda: os.mkfifo("pipe"), ["--resume", "pipe"], "pipe"),
    "a generator as run": (generator_only, ["--resume", "generator.h5"], "generator.h5 holds no run"),
    "no generator": (nothing, [*NEW, "--init-from", "none.h5"], "no file none.h5"),
    "a text as generator": (text("notes"), [*NEW, "--init-from", "notes"], "notes is not an HDF5 file"),
    "a folder as generator": (nothing, [*NEW, "--init-from", "run"], "run is a folder; give an HDF5 file"),
    "another program's generator": (foreign_file, [*NEW, "--init-from", "foreign.h5"], "holds no generator"),
    "another size than the generator's": (
        generator_only,
        [*NEW, "--blocks", 3, "--init-from", "generator.h5"],
        "generator.h5 is a generator of --blocks 1: leave out --blocks 3",
    ),
    "another loss than the generator's end allows": (
        generator_only,
        [*NEW, "--pixel-loss", "bce", "--init-from", "generator.h5"],
        "generator.h5 is a generator of --pixel-loss mse: leave out --pixel-loss bce",
    ),
    "a range of nothing": (nothing, [*NEW, "--value-range", "unit"], "--value-range is that of the generator"),
    "a range of our own file": (
        generator_only,
        [*NEW, "--value-range", "unit", "--init-from", "generator.h5"],
        "states its value range: leave out --value-range",
    ),
    "a generator for a run that has one": (
        generator_only,
        [*AGAIN, "--init-from", "generator.h5"],
        "--resume goes on with a run and its generator: leave --init-from out",
    ),
    "an unknown optimizer": (nothing, [*NEW, "--optimizer", "sgd"], "invalid choice: 'sgd'"),
    "a run that is done": (nothing, ["--resume", "run"], "1 steps on pixels and 0 adversarial ones: for more, "
"give --pretrain-steps above 1 or --steps above 0."),
    "a new run of no steps": (nothing, [*NEW, "--pretrain-steps", 0], "--pretrain-steps above 0 or --steps above 0."),
    "a run that is done, elsewhere": (nothing, ["--resume", "run", "--out", "new"], "run has done 1 steps on pixels"),
    "fewer steps than done": (
        nothing,
        ["--resume", "run", "--pretrain-steps", 0],
        "run/checkpoint.h5 has done 1 steps, 1 of them on pixels, and --pretrain-steps 0 can't change that",
    ),
    "an empty checkpoint": (checkpoint(b""), AGAIN, "run/checkpoint.h5 is not an HDF5 file"),
    "a signature alone": (cut_checkpoint(8), AGAIN, "run/checkpoint.h5"),
    "a cut checkpoint": (cut_checkpoint(100_000), AGAIN, "run/checkpoint.h5 is damaged or cut short"),
    "another program's": (header(format="x"), AGAIN, "not one that tinysrgan wrote"),
    "of the future": (header(version=9), AGAIN, "Update tinysrgan"),
    "a state without an end": (header(state="[" * 99999), AGAIN, "is damaged"),
    "a state that is a list": (header(state="[1, 2]"), AGAIN, "run/checkpoint.h5"),
    "a missing tensor": (without("generator/tail/b"), AGAIN, "generator.tail.b is missing"),
    "a tensor too many": (edited(lambda file: file["generator"].update(x=[1.0])), AGAIN, "generator.x is unexpected"),
    "a wrong shape": (array(np.zeros(4, np.float32)), AGAIN, "generator.tail.b has shape (4,), not (3,)"),
    "a wrong type": (array(np.zeros(3)), AGAIN, "generator.tail.b holds float64, not float32"),
    "not a number": (array(np.full(3, np.nan, np.float32)), AGAIN, "not all numbers are finite in generator.tail.b"),
    "no discriminator": (without("discriminator"), AGAIN, "it has no discriminator"),
    "no optimizer": (without("adam_generator"), AGAIN, "it has no adam_generator"),
    "no count of steps": (edited(lambda file: file["adam_generator"].attrs.pop("steps")), AGAIN, "damaged"),
    "deep groups": (edited(deep), AGAIN, "nested more than 20 deep"),
    "another file's nets": (edited(other_group), AGAIN, "it has no discriminator"),
    **{
        f"a tensor: {plant.__name__}": (with_bias(plant), AGAIN, "generator.tail.b")
        for plant in (external_link, external_storage, virtual, compressed, vast, texts, circle)
    },
    # invalid states
    "no step": (state(step=None), AGAIN, "holds no run"),
    "a step that is a text": (state(step="1"), AGAIN, "run/checkpoint.h5"),
    "a step before the first": (state(step=-5), AGAIN, "run/checkpoint.h5"),
    "a folder that is a number": (state(data=5), AGAIN, "run/checkpoint.h5"),
    "VGG19 that is a number": (state(vgg=5), AGAIN, "run/checkpoint.h5"),
    "options that are a list": (header(state='{"options": [], "data": "images", "step": 1}'), AGAIN, "holds no run"),
    "an unknown saved option": (state(options={"colour": 1}), AGAIN, "holds no run"),
    **{
        f"a saved {name} of {value}": (
            state(options={name.replace("-", "_"): value}),
            AGAIN,
            f"run/checkpoint.h5 is of no use: argument --{name}: ",
        )
        for name, value in {
            "blocks": 10**9,
            "filters": "many",
            "hr-size": 10**6,
            "scale": 3,
            "batch-size": 10**9,
            "upscale": "__import__",
            "augment": "x",
            "preset": "x",
            "pixel-loss": None,
            "content-loss": "block9_conv9",
            "pretrain-learning-rate": float("nan"),
            "learning-rate": None,
            "decay": "never",
            "max-images": -1,
            "epochs": "x",
            "seed": -1,
            "flip": 7,
            "exact": "x",
            "save-every": 0,
            "slope": float("inf"),
            "ema": 1.0,
            "feature-scale": "x",
            "discriminator-filters": 10**9,
            "discriminator-dense": 0,
        }.items()
    },
    "a saved value under an old name": (
        state(options={"pretrain_rate": "x"}),
        AGAIN,
        "run/checkpoint.h5 is of no use: argument --pretrain-learning-rate: ",
    ),
    "the images are gone": (lambda: shutil.rmtree("images"), AGAIN, "tinysrgan.train NEWFOLDER --resume run`"),
    # options that a resumed run may not change
    "another size of net": (nothing, [*AGAIN, "--filters", 4], "leave out --filters (was 2)"),
    "another batch": (nothing, [*AGAIN, "--batch-size", 3], "leave out --batch-size (was 2)"),
    "another preset and seed": (nothing, [*AGAIN, "--preset", "paper", "--seed", 9], "(was qr), --seed (was 0)"),
    "VGG19 for a run on pixels": (vgg(), [*AGAIN, "--vgg-weights", "vgg.h5"], "--vgg-weights"),
    "into another run": (second_run, [*AGAIN, "--out", "second"], "second holds a run already"),
    # VGG19
    "no VGG19": (nothing, VGG, "There is no file vgg.h5"),
    "a folder as VGG19": (nothing, [*NEW, "--vgg-weights", "images"], "images is a folder"),
    "a text as VGG19": (text("vgg.h5"), VGG, "vgg.h5 is not an HDF5 file"),
    "an empty VGG19": (vgg(), VGG, "vgg.h5 can't give VGG19 up to block1_conv2"),
    "half of VGG19": (vgg(block1_conv1=[(3, 3, 3, 64), (64,)]), VGG, "It serves block1_conv1"),
    "VGG19 of wrong shapes": (
        vgg(block1_conv1=[(3, 3, 3, 64), (64,)], block1_conv2=[(3, 3, 64, 63), (64,)]),
        VGG,
        "kernel has shape (3, 3, 64, 63)",
    ),
    "a run's checkpoint as VGG19": (nothing, [*NEW, "--vgg-weights", "run/checkpoint.h5"], "can't give VGG19"),
    "VGG19 by name, and offline": (nothing, [*NEW, "--content-loss", "block3_conv4"], "could not be downloaded"),
    # results
    "a run already": (nothing, [*NEW, "--out", "run"], "run holds a run already: go on with it by --resume run"),
    "a generator already": (only_generator_left, NEW, "new holds"),
    "a file as results": (text("notes"), [*NEW, "--out", "notes"], "notes is not a folder"),
    "results below a file": (text("notes"), [*NEW, "--out", "notes/a/b"], "notes"),
    "results of a name too long": (nothing, [*NEW, "--out", "x" * 300], "name too long"),
    "results on a device": (nothing, [*NEW, "--out", os.devnull], os.devnull),
    "a dead link as results": (lambda: os.symlink("nowhere/x", "dead"), [*NEW, "--out", "dead"], "dead"),
}  # fmt: skip


@pytest.mark.parametrize("losses", [[1, 2], {"pixel": 3}, {"pixel": ["x"]}])
def test_saved_losses_that_lie(here, losses, capsys):
    """The saved losses are read only if the log lacks the rows since the checkpoint."""
    says(losses=losses)
    os.remove("run/log.csv")
    assert run(AGAIN) == 2
    check_sentence(capsys.readouterr().err, "run/checkpoint.h5 is of no use: its losses are not lists of numbers.")


@pytest.mark.skipif(os.name == "nt", reason="named pipes, links")
@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_sentence_and_nothing_is_lost(here, name, capsys):
    prepare, arguments, words = BAD[name]
    prepare()
    refuse(arguments, words, capsys)


def test_every_image_is_named_whatever_its_name(here, capsys):
    """Unreadable files among good ones are skipped, each with its reason on one line, and the run continues."""
    Path("images/deeper").mkdir()
    for i, path in enumerate(sorted(Path("images").glob("*.png"))[:3]):  # two files of one name
        shutil.copy(path, f"images/deeper/{path.name}")
        path.write_bytes(b"broken")
        Path(f"images/{i}\n\x1b[2J.png").write_bytes(b"broken")
    if hasattr(os, "mkfifo"):
        os.mkfifo("images/pipe.png")
    assert run(["images", "--out", "new", *SMALL, "--pretrain-steps", 6, "--steps", 0]) == 0
    out = capsys.readouterr().out
    assert out.count("skipped") == len([line for line in out.splitlines() if line.startswith("skipped")]) >= 6
    assert "\x1b" not in out and out.count("\\x1b[2J.png: is not an image") == 3
    assert hasattr(os, "mkfifo") is False or "pipe.png: is not a file" in out


# ---------------------------------------------------------------- missing packages, memory and network


def test_a_gpu_and_packages_that_are_not_there(here, monkeypatch, capsys):
    for name in ("cupy", "qrcode"):
        monkeypatch.setitem(sys.modules, name, None)
    refuse([*NEW, "--device", "cuda"], "--device cuda doesn't work here: CuPy is not installed", capsys)
    refuse([*AGAIN, "--device", "cuda"], "or use --device cpu", capsys)
    refuse([*NEW, "--synthetic"], "`pip install qrcode`", capsys)


def test_no_traceback_from_a_real_shell(here):
    """Check the same errors in a separate process, where pytest catches nothing."""
    Path("qrcode.py").write_text("raise ImportError")
    before = contents()
    for line, words in (
        (["nowhere", *NEW[1:]], "nowhere doesn't exist"),
        ([*NEW, "--synthetic"], "pip install qrcode"),
        ([*NEW, "--blocks", "0"], "--blocks: '0' is not a whole number"),
    ):
        code = f"import sys; sys.path.insert(0, '.'); from tinysrgan.train import main; sys.exit(main({line!r}))"
        done = python("-B", "-c", code, stdout=subprocess.PIPE)
        assert (done.returncode, done.stdout) == (2, "")
        check_sentence(done.stderr, words)
        assert contents() == before


LITTLE_MEMORY = """
import resource, sys
from tinysrgan.train import main
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000,) * 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited the Linux way")
@pytest.mark.parametrize("options", [("--filters", 512, "--blocks", 64), ("--hr-size", 2048, "--batch-size", 1)])
def test_too_little_memory(here, options):
    before = contents()
    done = python("-c", LITTLE_MEMORY, *NEW, *options)
    assert done.returncode == 2
    words = "too little memory for this; try a smaller --batch-size, --hr-size or --filters."
    check_sentence(done.stderr.splitlines()[-1], words)
    assert contents() == before


def test_too_little_memory_in_a_step(here, monkeypatch, capsys):
    """Files saved before are complete, and a new run's folder can be used again."""

    def no_memory(*arguments):
        raise MemoryError

    before = contents()
    monkeypatch.setattr("tinysrgan.data.dataset.ImagePairs.batch", no_memory)
    for arguments in (NEW, AGAIN):
        assert run(arguments) == 2
        check_sentence(capsys.readouterr().err, "too little memory")
    assert contents() == before
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert run(NEW) == run(AGAIN) == 0


def test_no_more_threads(here, monkeypatch, capsys):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    assert run(AGAIN) == 2
    check_sentence(capsys.readouterr().err, "too little memory for another thread")


def test_a_number_of_threads_that_is_none(here, monkeypatch, capsys):
    monkeypatch.setenv("TINYSRGAN_THREADS", "many")
    before = contents()
    assert run(AGAIN) == 2
    check_sentence(capsys.readouterr().err, "TINYSRGAN_THREADS is the number of worker threads")
    assert contents() == before


# ---------------------------------------------------------------- errors of the operating system


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(
    ("locked", "arguments", "words"),
    [
        ("images", NEW, "images can't be listed: Permission denied."),
        (".", NEW, ". doesn't allow to write results to new: give another --out."),
        ("run", [*NEW, "--out", "run/deeper/new"], "run doesn't allow to write results to run/deeper/new"),
        ("run", AGAIN, "run/log.csv can't be written: Permission denied."),
        ("run/checkpoint.h5", AGAIN, "run/checkpoint.h5 can't be read: Permission denied."),
        ("vgg.h5", VGG, "vgg.h5 can't be read: Permission denied."),
        ("images/*", NEW, "None of the held-out images can be"),
    ],
)
def test_no_permission(template, monkeypatch, capsys, locked, arguments, words):
    place = Path(tempfile.mkdtemp()) / "here"  # any user may enter its parents, unlike those of pytest's folders
    shutil.copytree(template, place)
    place.parent.chmod(0o755)
    monkeypatch.chdir(place)
    says(data="images")
    Path("vgg.h5").touch()
    for path in (place, *place.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    before = contents()
    closed = sorted(place.glob(locked)) if locked != "." else [place]
    for path in closed:
        path.chmod(0o555 if locked in (".", "run") else 0)
    try:
        with without_privileges(monkeypatch):
            assert run(arguments) == 2
    finally:
        for path in closed:
            path.chmod(0o777)
        after = contents()
        monkeypatch.chdir("/")
        shutil.rmtree(place.parent)
    check_sentence(capsys.readouterr().err, words)
    assert after == before


@pytest.fixture
def limit(request):
    """Return a function that limits the size of this process's files, as on a nearly full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_before_the_first_checkpoint(here, limit, capsys):
    before = contents()
    limit(10_000)
    assert run(NEW) == 2
    check_sentence(capsys.readouterr().err, "new/checkpoint.h5 can't be written: File too large.")
    assert contents() == before
    limit(-1)
    assert run(NEW) == 0  # the limit is large enough


def test_a_full_disk_in_the_middle_keeps_the_last_checkpoint(here, limit, monkeypatch, capsys):
    """The first save succeeds, the second fails; the resumed run ends like an uninterrupted one."""
    steps = ["--pretrain-steps", 1, "--steps", 2, "--save-every", 1]
    assert run(["images", *SMALL, *steps, "--out", "whole"]) == 0
    kept = {}

    def save(self, done, save=RunLog.save):
        if done == 2:
            kept.update(contents())
            limit(100_000)
        save(self, done)

    monkeypatch.setattr(RunLog, "save", save)
    assert run(["images", *SMALL, *steps, "--out", "new"]) == 2
    limit(-1)
    check_sentence(capsys.readouterr().err, "new/checkpoint.h5 can't be written: File too large. What was there")
    assert contents() == kept
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert run(["--resume", "new"]) == 0
    assert Path("new/generator.h5").read_bytes() == Path("whole/generator.h5").read_bytes()


def test_a_full_disk_under_each_of_the_other_files(here, limit, monkeypatch, capsys):
    """An error names the log, its rows, a picture or the curves, and the checkpoint is complete."""
    saved = Path("run/checkpoint.h5").read_bytes()
    limit(10)
    assert run(AGAIN) == 2
    limit(-1)
    check_sentence(capsys.readouterr().err, "run/log.csv can't be written: File too large.")
    assert Path("run/checkpoint.h5").read_bytes() == saved

    def fill(function):
        def call(*arguments):
            limit(os.path.getsize("new/log.csv"))
            return function(*arguments)

        return call

    for place, words in (
        ("tinysrgan.training.run_log.encode", "new/pictures/step-000001.png can't be written: File too large."),
        ("tinysrgan.training.run_log.RunLog._write_row", "new/log.csv can't be written: File too large."),
        (
            "tinysrgan.training.run_log.loss_curves",
            "new/losses.png can't be written: File too large. All the rest is there.",
        ),
    ):
        if "curves" in place:
            pytest.importorskip("matplotlib")
        with monkeypatch.context() as patch:
            module, name = place.rsplit(".", 1)
            patch.setattr(place, fill(getattr(RunLog if "RunLog" in module else sys.modules[module], name)))
            assert run(NEW) == 2
        limit(-1)
        check_sentence(capsys.readouterr().err, words)
        assert run(["--resume", "new", "--steps", 1, "--device", "cpu"]) == 0
        assert [path for path in Path("new").rglob("*.tmp")] == []
        capsys.readouterr()
        shutil.rmtree("new")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_standard_output_that_takes_nothing(here):
    before = contents()
    with open("/dev/full", "w") as full:
        done = python("-m", "tinysrgan.train", *NEW, stdout=full)
    assert done.returncode == 2
    assert done.stderr == "tinysrgan: standard output can't be written: No space left on device.\n"
    assert contents() == before


FULL_IN_THE_MIDDLE = """
import os, sys
from tinysrgan.training.run_log import RunLog
from tinysrgan.train import main

def save(self, done, save=RunLog.save):
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    save(self, done)

RunLog.save = save
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_standard_output_that_fills_up_in_the_middle(here):
    """The files saved before the error are complete, and the run can be resumed."""
    done = python("-c", FULL_IN_THE_MIDDLE, *NEW, stdout=subprocess.PIPE)
    assert done.returncode == 2 and "images to train on" in done.stdout
    check_sentence(done.stderr, "standard output can't be written: No space left on device.")
    assert run(["--resume", "new", "--steps", 1, "--device", "cpu"]) == 0


def test_pictures_that_cannot_be_put_anywhere(here, capsys):
    Path("new").mkdir()
    Path("new/pictures").write_text("hello")
    assert run(NEW) == 2
    check_sentence(capsys.readouterr().err, "new/pictures: File exists.")
    os.remove("new/pictures")
    assert run(["--resume", "new", "--steps", 1, "--device", "cpu"]) == 0


def test_a_log_that_cannot_be_begun(here, capsys):
    Path("new/log.csv").mkdir(parents=True)
    before = contents()
    assert run(NEW) == 2
    check_sentence(capsys.readouterr().err, "new/log.csv can't be written: Is a directory.")
    assert contents() == before


# ---------------------------------------------------------------- errors during a run


def test_held_out_images_that_go_in_the_middle(here, monkeypatch, capsys):
    """The error names one missing file, whether it is skipped or ends the run; everything is saved by then."""
    _, held_out = split(find_images(Path("images")))

    def finish(self, finish=RunLog.finish):
        held_out[0].unlink()
        finish(self)

    monkeypatch.setattr(RunLog, "finish", finish)
    code = run(NEW)
    printed = capsys.readouterr()
    assert f"{held_out[0]}: can't be read" in (printed.err.splitlines()[-1] if code else printed.out)
    assert code in (0, 2) and "Traceback" not in printed.err
    assert Path("new/generator.h5").is_file() and Path("new/checkpoint.h5").is_file()


def test_all_images_go_in_the_middle(here, monkeypatch, capsys):
    def save(self, done, save=RunLog.save):
        shutil.rmtree("images", ignore_errors=True)
        self.pairs.sources.kept.clear()
        save(self, done)

    monkeypatch.setattr(RunLog, "save", save)
    assert run(["images", *SMALL, "--pretrain-steps", 90, "--steps", 0, "--save-every", 1, "--out", "new"]) == 2
    check_sentence(capsys.readouterr().err, "None of the 4 images to train on can be used, for example: images")
    assert Path("new/checkpoint.h5").is_file()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--pretrain-steps", 3, "--pretrain-learning-rate", 1e300], "pixel"),
        (["--adversarial-weight", 1e300], "adversarial"),
    ],
)
def test_numbers_that_overflow(here, options, name, capsys):
    """The run leaves nothing: it has neither a row of the log nor a checkpoint."""
    start = ["--pretrain-steps", 0, "--steps", 3]
    assert run(["images", *SMALL, *start, *options, "--out", "new"]) == 2
    error = capsys.readouterr().err
    check_sentence(error, "Training stopped at step ")
    assert name in error and "--learning-rate" in error and not Path("new").exists()


def test_a_first_image_that_is_the_only_bad_one(here, capsys):
    """All training images, and only those, are broken. The first batch finds them, and the sentence is the same."""
    for path in split(find_images(Path("images")))[0]:
        path.write_bytes(b"broken")
    assert run(NEW) == 2
    check_sentence(capsys.readouterr().err, "None of the 4 images to train on can be used, for example: images")
    assert not Path("new").exists()


def test_help_is_read_in_a_minute(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and len(text.split()) < 600 and len(text.splitlines()) < 98
