"""The command ``python -m tinysrgan.export``: its files, messages and errors."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import mistakes
import numpy as np
import pytest
from mistakes import bad_outputs, check_sentence, contents, make_bad_outputs, without_privileges
from test_keras_nets import HOSTILE, edited, files, filled  # noqa: F401 (files is a fixture)
from test_upscale import BAD_WEIGHTS, png
from test_upscaler import repeating

from tinysrgan.export import main
from tinysrgan.formats import checkpoint
from tinysrgan.formats.generator_files import read_generator
from tinysrgan.formats.keras.nets import load_keras_generator
from tinysrgan.models import VGG19, Discriminator, Generator

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "TINYSRGAN_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
OLD = b"an older result"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Change to a folder with generator.h5 and an older result."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save_generator(Path("generator.h5"), repeating(), {})
    Path("out.h5").write_bytes(OLD)
    return tmp_path


def export(*arguments) -> int:
    return main([*map(str, arguments)])


def command(*arguments, **options) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "tinysrgan.export", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, **options)


def check(path, generator: Generator) -> None:
    """Assert that a file has the attributes that Keras reads and that it holds this generator."""
    with h5py.File(path) as file:
        assert {"layer_names", "backend", "keras_version"} <= file.attrs.keys()
        for layer in file.attrs["layer_names"]:
            assert len(file[layer].attrs["weight_names"])
    back = load_keras_generator(Path(path))
    assert back.config == generator.config | {"grey": False}  # Keras files do not store it
    for name, tensor in generator.tensors().items():
        np.testing.assert_array_equal(back.tensors()[name].value, tensor.value, err_msg=name)


# ---------------------------------------------------------------- results


@pytest.mark.parametrize(
    "config",
    [
        {"blocks": 1, "filters": 4},
        {"blocks": 2, "filters": 3, "scale": 8, "upscale": "nearest", "output": "tanh"},
        {"blocks": 1, "filters": 2, "scale": 2, "output": "sigmoid", "value_range": "bytes:unit"},
    ],
)
def test_our_generators(here, capsys, config):
    generator = filled(Generator(**config, seed=2))
    checkpoint.save_generator(Path("generator.h5"), generator, {})
    assert export("generator.h5", "out.h5") == 0
    check("out.h5", generator)
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert err.startswith("tinysrgan: out.h5") and f"scale {generator.scale}" in err
    assert sorted(os.listdir()) == ["generator.h5", "out.h5"]


def test_the_shipped_generator(here):
    assert export(ROOT / "weights" / "qr_x4.h5", "out.h5") == 0
    check("out.h5", read_generator(ROOT / "weights" / "qr_x4.h5"))


def test_the_generator_of_a_checkpoint(here):
    generator = repeating(scale=2)
    nets = {"generator": generator, "discriminator": Discriminator(16, 2, 8)}
    checkpoint.save(Path("checkpoint.h5"), nets, {}, {"step": 3})
    assert export("checkpoint.h5", "new.h5") == 0
    check("new.h5", generator)


@pytest.mark.parametrize(
    "name, values",
    [
        ("keras2/krasserm_weights", "unit:tanh"),
        ("keras3/article.weights", "bytes"),
        ("keras3/rescaling_trained", None),
    ],
)
def test_keras_files(here, files, name, values):  # noqa: F811
    source = files / f"{name}.h5"
    assert export(source, "out.h5", *(["--value-range", values] if values else [])) == 0
    check("out.h5", load_keras_generator(source, values))
    assert export("out.h5", "again.h5") == 0  # the file states the range
    assert Path("again.h5").read_bytes() == Path("out.h5").read_bytes()


def test_what_the_wiring_is_known_from(here, files, capsys):  # noqa: F811
    """Weights files do not store the wiring, and one message says so; whole models and our exports store it."""
    assert export(files / "keras2/article_weights.h5", "out.h5", "--value-range", "bytes") == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "article_weights.h5 holds weights alone, which don't tell how the layers" in said[0]
    for source in ("out.h5", files / "keras3/sigmoid_model.h5"):
        assert export(source, "again.h5", *([] if source == "out.h5" else ["--value-range", "unit:sigmoid"])) == 0
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        export("--help")
    assert "weights alone don't tell it" in " ".join(capsys.readouterr().out.split())


FORMS = [
    {"blocks": 2, "filters": 4},
    {"blocks": 1, "filters": 3, "scale": 8, "upscale": "nearest", "output": "tanh"},
    {"blocks": 1, "filters": 2, "scale": 2, "output": "sigmoid", "value_range": "bytes:unit"},
    {"blocks": 2, "filters": 3, "norm": False},
]


@pytest.mark.parametrize("config", FORMS)
def test_keras_archives(here, config):
    """Bit for bit, through a file that says all that is needed."""
    generator = filled(Generator(**config, seed=2))
    checkpoint.save_generator(Path("generator.h5"), generator, {})
    assert export("generator.h5", "out.keras") == 0
    back = read_generator(Path("out.keras"))
    assert back.config == generator.config | {"grey": False}
    for name, tensor in generator.tensors().items():
        np.testing.assert_array_equal(back.tensors()[name].value, tensor.value, err_msg=name)
    assert export("out.keras", "again.keras") == 0
    assert Path("again.keras").read_bytes() == Path("out.keras").read_bytes()


@pytest.mark.parametrize("config", FORMS)
def test_keras_loads_the_archive_and_computes_the_same(here, config):
    keras = pytest.importorskip("keras", minversion="3.13")
    generator = filled(Generator(**config | {"value_range": "signed:signed"}, seed=2)).eval()
    checkpoint.save_generator(Path("generator.h5"), generator, {})
    assert export("generator.h5", "out.keras") == 0
    x = np.random.default_rng(0).uniform(-1, 1, (2, 6, 5, 3)).astype(np.float32)
    y = generator.forward(x)
    assert np.abs(keras.saving.load_model("out.keras").predict(x, verbose=0) - y).max() < 1e-4 * max(1, np.ptp(y))


@pytest.mark.parametrize("config", FORMS)
def test_onnx_computes_the_same(here, config, capsys):
    """onnxruntime, for images of two sizes; channels first."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    generator = filled(Generator(**config, seed=2)).eval()
    checkpoint.save_generator(Path("generator.h5"), generator, {})
    assert export("generator.h5", "out.onnx") == 0
    assert "its values go from -1 to 1 to -1 to 1" in capsys.readouterr().err
    session = onnxruntime.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    for size in ((2, 6, 5, 3), (1, 9, 12, 3)):
        x = np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)
        (result,) = session.run(None, {"image": x.transpose(0, 3, 1, 2)})
        y = generator.forward(x)
        assert np.abs(result.transpose(0, 2, 3, 1) - y).max() < 1e-4 * max(1, np.ptp(y))


def test_onnx_of_the_shipped_generator(here):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = ROOT / "weights" / "qr_x4_srresnet.h5"
    assert export(path, "out.onnx") == 0
    x = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": x.transpose(0, 3, 1, 2)})
    assert np.abs(result.transpose(0, 2, 3, 1) - read_generator(path).forward(x)).max() < 1e-4


def test_without_onnx_it_says_what_to_install(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refuse("generator.h5", "out.onnx", words="install it with `pip install onnx`", capsys=capsys)


def test_links_and_odd_names(here):
    if os.name == "nt":
        pytest.skip("links need rights on Windows")
    os.mkdir("elsewhere")
    os.symlink("elsewhere/new.h5", "link.h5")
    os.symlink("generator.h5", "input.h5")
    names = ("link.h5", "mit Leerzeichen.h5", "画像 é.h5", "./-dash.h5", "line\nbreak.h5", os.fsdecode(b"\xff.h5"))
    for name in names:
        assert export("input.h5", name) == 0
        check(name, repeating())
    assert os.path.islink("link.h5")
    check("elsewhere/new.h5", repeating())


def test_help_is_read_in_a_minute(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    assert len(text.split()) < 200 and len(text.splitlines()) < 40
    assert all(word in text for word in ("IN", "OUT", "--value-range", "Exit code", "load_weights"))


# ---------------------------------------------------------------- bad inputs


def refuse(*arguments, words: str, capsys) -> None:
    out, _ = mistakes.refuse(main, arguments, words, capsys)
    assert not out


@pytest.mark.parametrize("name", [name for name in BAD_WEIGHTS if name != "overflowing"])
def test_bad_generators(here, name, capsys):
    make, words = BAD_WEIGHTS[name]
    make(here / "generator.h5")
    refuse("generator.h5", "out.h5", words="generator.h5" if name == "another program's" else words, capsys=capsys)


def holding(content: bytes):
    return lambda: Path("bad.h5").write_bytes(content)


def vgg():
    net = VGG19("block2_conv1")
    with h5py.File("bad.h5", "w") as file:
        file.attrs["layer_names"] = [name for name in net.chain if "conv" in name]
        for name in file.attrs["layer_names"]:
            conv = net[name]["conv"]
            file[f"{name}/{name}_W_1:0"], file[f"{name}/{name}_b_1:0"] = conv.w.value, conv.b.value
            file[name].attrs["weight_names"] = [f"{name}_W_1:0", f"{name}_b_1:0"]


def numbers():
    with h5py.File("bad.h5", "w") as file:
        file["numbers"] = np.arange(5)


def nothing():
    h5py.File("bad.h5", "w").close()


BAD_INPUTS = {
    "absent": (lambda: None, "There is no file bad.h5"),
    "a folder": (lambda: os.mkdir("bad.h5"), "bad.h5 is a folder"),
    "a pipe": (lambda: os.mkfifo("bad.h5"), "bad.h5"),
    "a dead link": (lambda: os.symlink("nowhere", "bad.h5"), "bad.h5"),
    "a link to itself": (lambda: os.symlink("bad.h5", "bad.h5"), "bad.h5"),
    "a device": (lambda: os.symlink("/dev/zero", "bad.h5"), "bad.h5 is not a file."),
    "empty": (holding(b""), "bad.h5 is not an HDF5 file"),
    "text": (holding(b"hello"), "but text: give the file of the weights"),
    "a picture": (holding(png(3, 3, bytes(12))), "bad.h5 is not an HDF5 file"),
    "a .keras archive": (holding(b"PK\x03\x04" + bytes(100)), "bad.h5 is not an HDF5 file"),
    "signature and zeros": (holding(b"\x89HDF\r\n\x1a\n" + bytes(5000)), "bad.h5"),
    "VGG19": (vgg, "bad.h5"),
    "numbers": (numbers, "bad.h5"),
    "nothing": (nothing, "bad.h5"),
}


@pytest.mark.skipif(os.name == "nt", reason="named pipes, links, devices")
@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs(here, name, capsys):
    make, words = BAD_INPUTS[name]
    make()
    refuse("bad.h5", "out.h5", words=words, capsys=capsys)


def test_a_name_without_an_end(here, capsys):
    refuse("x" * 300 + ".h5", "out.h5", words="xxx", capsys=capsys)


BAD_KERAS = {
    "no range": ("keras2/paper_weights", (), "--value-range"),
    "no such range": ("keras2/paper_weights", ("--value-range", "0:255"), "0:255"),
    "another range than stated": ("keras2/rescaling_model", ("--value-range", "bytes"), "states"),
    "a discriminator": ("keras2/discriminator_weights", ("--value-range", "signed"), "discriminator_weights.h5"),
    "no SRGAN": ("keras3/mlp_model", ("--value-range", "signed"), "no generator"),
    "another kernel": ("keras3/misfit_kernel.weights", ("--value-range", "signed"), "(5, 5, 2, 2), not (3, 3, 2, 2)"),
    "another PReLU": ("keras2/misfit_prelu_weights", ("--value-range", "signed"), "(6, 5, 2), not (1, 1, 2)"),
    "half a block": ("keras2/misfit_block_weights", ("--value-range", "signed"), "missing"),
}


@pytest.mark.parametrize("name", BAD_KERAS)
def test_keras_files_that_do_not_do(here, files, name, capsys):  # noqa: F811
    source, options, words = BAD_KERAS[name]
    refuse(files / f"{source}.h5", "out.h5", *options, words=words, capsys=capsys)


@pytest.mark.parametrize("name", ["a layer above", "another file", "terabytes", "no number", "deep JSON", "no JSON"])
def test_hostile_keras_files(here, files, name, capsys):  # noqa: F811
    edited(files, here, HOSTILE[name][0])
    refuse("edited.h5", "out.h5", "--value-range", "unit:tanh", words="edited.h5", capsys=capsys)


def test_a_range_for_a_generator_of_ours(here, capsys):
    """The file states its range, so the option is an error."""
    refuse("generator.h5", "out.h5", "--value-range", "bytes", words="--value-range", capsys=capsys)


# ---------------------------------------------------------------- bad outputs and options


OUTPUTS = bad_outputs("generator.h5") | {
    "a link to nowhere": ("dead.h5", "dead.h5"),
    "no ending": ("result", "result must end in .h5"),
    "hidden": (".h5", ".h5 must end in .h5"),
    "a picture": ("result.png", "result.png must end in .h5"),
    "Keras 3's weights": ("result.weights.h5", "not in .weights.h5"),
    "a folder without an ending": ("folder", "folder is a folder: give a file name, for example folder/keras.h5"),
    "standard output": ("-", "- must end in .h5"),
    "a system's folder": ("/proc/out.h5", "/proc"),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="named pipes, links, /proc")
@pytest.mark.parametrize("name", OUTPUTS)
def test_bad_outputs(here, name, capsys):
    os.symlink("nowhere/out.h5", "dead.h5")
    make_bad_outputs("generator.h5")
    target, words = OUTPUTS[name]
    refuse("generator.h5", target, words=words, capsys=capsys)


def test_a_run_keeps_its_generator(here, capsys):
    checkpoint.save_generator(Path("run.h5"), repeating(), {})
    refuse("generator.h5", "run.h5", words="run.h5 is a training run's generator or checkpoint", capsys=capsys)
    for _ in range(2):
        assert export("generator.h5", "UPPER.H5") == 0
    check("UPPER.H5", repeating())


def test_bad_options(here, capsys):
    for line, words in {
        (): "required: IN, OUT",
        ("generator.h5",): "required: OUT",
        ("generator.h5", "out.h5", "more.h5"): "unrecognized arguments: more.h5",
        ("generator.h5", "out.h5", "--colour"): "unrecognized arguments: --colour",
        ("generator.h5", "out.h5", "--value-range"): "expected one argument",
    }.items():
        refuse(*line, words=words, capsys=capsys)


# ---------------------------------------------------------------- errors of the operating system


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_no_permission(capsys, monkeypatch):
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    monkeypatch.chdir(place)
    checkpoint.save_generator(Path("generator.h5"), repeating(), {})
    shutil.copy("generator.h5", "secret.h5")
    os.mkdir("closed")
    Path("closed/out.h5").write_bytes(OLD)
    before = contents()
    Path("generator.h5").chmod(0o644)
    Path("secret.h5").chmod(0)
    Path("closed").chmod(0o555)
    with without_privileges(monkeypatch):
        for line, words in {
            ("secret.h5", "out.h5"): "secret.h5 can't be read: Permission denied.",
            ("generator.h5", "closed/out.h5"): "closed",
            ("generator.h5", "closed/new.h5"): "Permission denied.",
        }.items():
            assert main([*line]) == 2
            check_sentence(capsys.readouterr().err, words)
    assert contents() == before
    shutil.rmtree(place)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
def test_a_disk_that_fills_up(here):
    resource = pytest.importorskip("resource")
    before = contents()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # noqa: E731
    done = command("generator.h5", "out.h5", preexec_fn=limit)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "out.h5 can't be written: File too large." in done.stderr
    assert contents() == before


def test_too_little_memory(here, monkeypatch, capsys):
    def no_memory(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("tinysrgan.export.read_generator", no_memory)
    refuse("generator.h5", "out.h5", words="memory", capsys=capsys)


def test_no_traceback_from_a_real_shell(here):
    """Check the same errors in a separate process."""
    Path("bad.h5").write_text("hello")
    for source, target in (("bad.h5", "out.h5"), ("generator.h5", "generator.h5")):
        done = command(source, target)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    done = command("generator.h5", "out.h5")
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    check("out.h5", repeating())
