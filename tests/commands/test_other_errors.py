"""User errors of gradcheck, doctor and make_qr, and the rules for every command: help and options."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import mistakes
import pytest
from mistakes import check_sentence, contents, python, refuse, without_privileges
from test_make_qr import load
from test_train_errors import limit  # noqa: F401 (limit is a fixture)

from tinysrgan import doctor, gradcheck
from tinysrgan.training.config import Options

ROOT = Path(__file__).parents[2]
MAKE_QR = ROOT / "examples" / "make_qr.py"

make_qr = load()


def run(main, *arguments) -> int:
    return mistakes.run(main, arguments)


# ---------------------------------------------------------------- every command

COMMANDS = {
    **{
        name: import_module(f"tinysrgan.{name}").main
        for name in ("train", "upscale", "evaluate", "export", "gradcheck", "doctor")
    },
    "make_qr": make_qr.main,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_read_in_a_minute_and_names_every_option(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(COMMANDS[name], "--help") == 0
    text, err = capsys.readouterr()
    assert not err and len(text.splitlines()) < 95 and len(text.split()) < 600
    usage, explained = text.split("\n\n", 1)
    options = set(re.findall(r"--[a-z][a-z-]*", usage)) | {"--help"}
    assert options == set(re.findall(r"^ +(?:-h, )?(--[a-z][a-z-]*)", explained, re.MULTILINE))
    assert name in usage


def test_every_option_of_the_source_is_in_the_help(capsys, monkeypatch):
    """Compare with the source, because the test above would not notice options that the usage leaves out."""
    monkeypatch.setenv("COLUMNS", "80")
    for name, main in COMMANDS.items():
        sources = [ROOT / "tinysrgan" / f"{name}.py", MAKE_QR if name == "make_qr" else ROOT / "tinysrgan" / "x.py"]
        sources += [ROOT / "tinysrgan" / "training" / "arguments.py"] * (name == "train")
        source = "".join(path.read_text() for path in sources if path.exists())
        assert run(main, "--help") == 0
        text = capsys.readouterr().out
        for option in re.findall(r'add(?:_argument)?\(\s*"(--[a-z-]+)"', source):
            assert option in text, f"{name} {option}"
    run(COMMANDS["train"], "--help")
    text = capsys.readouterr().out
    for option in fields(Options):
        flag = f"--{option.name.replace('_', '-')} "
        assert (flag in text) == (option.metadata["help"] is not None), flag


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "arguments", [["--no-such-option"], ["a", "b", "c", "d"], ["--help=x"], ["--", "a", "--", "--"]]
)
def test_an_unknown_option_is_no_traceback(name, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(COMMANDS[name], *arguments) == 2
    out, err = capsys.readouterr()
    assert not out and not contents()
    check_sentence(err, "error: ")


@pytest.mark.parametrize("name", ["train", "upscale", "rescue", "evaluate", "export", "make_qr"])
@pytest.mark.parametrize("arguments", [["", "x"], ["--out=", "x"]])
def test_an_empty_argument_is_not_the_current_folder(name, arguments, tmp_path, monkeypatch, capsys):
    """As a shell gives it for a variable without a value."""
    monkeypatch.chdir(tmp_path)
    main = COMMANDS[name] if name in COMMANDS else import_module(f"tinysrgan.{name}").main
    refuse(main, arguments, "is empty", capsys)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("name", ["gradcheck", "doctor", "make_qr"])
def test_standard_output_that_takes_nothing(name, tmp_path):
    pytest.importorskip("qrcode")
    command = [MAKE_QR, tmp_path / "codes", "--count", 4] if name == "make_qr" else ["-m", f"tinysrgan.{name}"]
    with open("/dev/full", "w") as full:
        done = python(*command, stdout=full)
    assert done.returncode == 2
    check_sentence(done.stderr, "standard output can't be written: No space left on device.")
    assert name != "make_qr" or len(list((tmp_path / "codes").iterdir())) == 4


# ---------------------------------------------------------------- gradcheck and doctor


@pytest.mark.parametrize("command", [gradcheck, doctor])
@pytest.mark.parametrize("threads", ["none", "0", "-1", "1.5"])
def test_a_number_of_threads_that_is_none(command, threads, monkeypatch, capsys):
    monkeypatch.setenv("TINYSRGAN_THREADS", threads)
    assert run(command.main) == 2
    check_sentence(
        capsys.readouterr().err, f"TINYSRGAN_THREADS is the number of worker threads, 1 or more, not '{threads}'"
    )


def test_too_little_memory(monkeypatch, capsys):
    def no_memory():
        raise MemoryError

    monkeypatch.setattr(gradcheck, "report", no_memory)
    assert run(gradcheck.main) == 2
    check_sentence(capsys.readouterr().err, "There is too little memory")


def test_a_wrong_gradient_is_exit_code_1(monkeypatch, capsys):
    rows = [("right", "x", 1e-9), ("wrong", "x", 1e-3), ("tied", "x", gradcheck.KINK), ("none", "w", float("nan"))]
    monkeypatch.setattr(gradcheck, "report", lambda: iter(rows))
    assert run(gradcheck.main) == 1
    out = capsys.readouterr().out
    assert re.findall(r"^(\w+) .*WRONG$", out, re.MULTILINE) == ["wrong", "none"]
    assert out.endswith("\n\nAbove 1e-06 is wrong.\n")
    monkeypatch.setattr(gradcheck, "report", lambda: iter(rows[-1:]))
    assert run(gradcheck.main) == 1
    assert capsys.readouterr().out.endswith("\n\nAbove 1e-06 is wrong.\n")


def test_a_kink_in_the_table_is_not_called_wrong(monkeypatch, capsys):
    monkeypatch.setattr(gradcheck, "report", lambda: iter([("right", "w", 1e-9), ("tied", "x", gradcheck.KINK)]))
    assert run(gradcheck.main) == 1  # a kink leaves the gradient unchecked, so the exit code is not 0
    out = capsys.readouterr().out
    assert re.search(r"^tied .* x   kink, not checked$", out, re.MULTILINE) and "WRONG" not in out
    assert out.endswith("\n\nAt a kink there is no slope to compare with: give random inputs.\n")


def test_no_number_is_not_hidden_by_the_others(monkeypatch):
    monkeypatch.setattr(gradcheck, "gradcheck", lambda *arguments: {"x": 1e-9, "w": float("nan"), "b": 1e-9})
    name, path, error = next(gradcheck.report())
    assert (name, path) == ("Conv2D", "w") and error != error


def test_a_wrong_gradient_is_not_hidden_by_a_kink(monkeypatch):
    monkeypatch.setattr(gradcheck, "gradcheck", lambda *arguments: {"x": gradcheck.KINK, "w": 1e-3, "b": 1e-2})
    assert next(gradcheck.report()) == ("Conv2D", "b", 1e-2)


@pytest.mark.parametrize("name", ["CompileException", "CUDADriverError", "CUDARuntimeError", "NVRTCError"])
def test_a_gpu_that_fails_in_the_middle_is_one_sentence(name, monkeypatch, capsys):
    """CuPy raises such errors: a compiler's log has many lines."""

    def fail():
        raise type(name, (RuntimeError,), {})("\nk.cu(3): warning: unused\nk.cu(7): error: no such thing.\n1 error")

    monkeypatch.setattr(gradcheck, "report", fail)
    assert run(gradcheck.main) == 2
    check_sentence(
        capsys.readouterr().err, "The GPU failed: k.cu(7): error: no such thing. Ask `python -m tinysrgan.doc"
    )


def test_an_error_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr(gradcheck, "report", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(gradcheck.main)


def test_ctrl_c(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    for command, part in ((gradcheck, "report"), (doctor, "findings")):
        monkeypatch.setattr(command, part, interrupted)
        assert run(command.main) == 130
        assert capsys.readouterr().err == "tinysrgan: stopped.\n"


def test_the_doctor_sees_no_package_and_says_so(monkeypatch, capsys):
    """``doctor`` is for broken installations, so no failure of CuPy may end it."""

    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("the driver is out of order\nand more")

    for cupy in (None, Broken()):
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        assert run(doctor.main) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 7 and "on the CPU with NumPy" in lines[5]
    assert "the driver is out of order" in lines[5]


# ---------------------------------------------------------------- make_qr


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Change to a folder with a complete folder of codes, a folder of other files, and a file."""
    pytest.importorskip("qrcode")
    monkeypatch.chdir(tmp_path)
    assert run(make_qr.main, "codes", "--count", 4) == 0
    Path("photos/deep").mkdir(parents=True)
    Path("photos/me.jpg").write_bytes(b"dear")
    Path("file").write_text("mine")
    return tmp_path


def nothing() -> None: ...


def foreign_code() -> None:
    shutil.copy("codes/mixed-0000-v1.png", "codes/mixed-0000-v1 (1).png")


def folder_among_codes() -> None:
    Path("codes/1000-v1").mkdir()


def link() -> None:
    os.symlink("nowhere", "link")


def circle() -> None:
    os.symlink("circle", "circle")


NUMBERS = "--count must be from 1 to 32400, --seed 0 or more"
BAD = {
    "no folder": (nothing, [], "the following arguments are required: folder"),
    "two folders": (nothing, ["new", "newer"], "unrecognized arguments: newer"),
    "a file": (nothing, ["file"], "file is a file: give a folder."),
    "below a file": (nothing, ["file/codes"], "file/codes: Not a directory."),
    "a device": (nothing, [os.devnull], "is a file: give a folder."),
    "a dead link": (link, ["link"], "link: File exists."),
    "a circle of links": (circle, ["circle"], "circle"),
    "a name too long": (nothing, ["x" * 300], "File name too long."),
    "other files": (nothing, ["photos"], "photos holds other files (deep ...): give an empty or a new folder."),
    "a copy of a code": (foreign_code, ["codes"], "codes holds other files (mixed-0000-v1 (1).png ...)"),
    "a folder among codes": (folder_among_codes, ["codes"], "codes holds other files (1000-v1 ...)"),
    "no codes": (nothing, ["new", "--count", 0], NUMBERS),
    "fewer than none": (nothing, ["new", "--count", -4], NUMBERS),
    "more than there are": (nothing, ["new", "--count", 32401], NUMBERS),
    "absurdly many": (nothing, ["new", "--count", 10**30], NUMBERS),
    "some": (nothing, ["new", "--count", "some"], "argument --count: invalid int value: 'some'"),
    "a half": (nothing, ["new", "--count", "1.5"], "argument --count: invalid int value: '1.5'"),
    "infinite": (nothing, ["new", "--count", "inf"], "argument --count: invalid int value: 'inf'"),
    "a count of nothing": (nothing, ["new", "--count", ""], "The argument after --count is empty"),
    "no count": (nothing, ["new", "--count"], "argument --count: expected one argument"),
    "a seed below zero": (nothing, ["new", "--seed", -1], NUMBERS),
    "a seed that is a text": (nothing, ["new", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
    "a seed beyond Python's": (nothing, ["new", "--seed", "9" * 5000], "argument --seed: invalid int value"),
    "public with a value": (nothing, ["new", "--public=yes"], "argument --public: ignored explicit argument 'yes'"),
}


@pytest.mark.skipif(os.name == "nt", reason="links, devices")
@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_sentence_and_nothing_is_lost(here, name, capsys):
    prepare, arguments, words = BAD[name]
    prepare()
    before = contents()
    capsys.readouterr()
    assert run(make_qr.main, *arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    check_sentence(err, words)
    assert contents() == before


def test_without_qrcode(here, monkeypatch, capsys):
    before = contents()
    monkeypatch.setitem(sys.modules, "qrcode", None)
    for folder in ("new", "codes"):
        assert run(make_qr.main, folder) == 2
        check_sentence(capsys.readouterr().err, "`pip install qrcode`")
    assert contents() == before


def test_a_full_disk_leaves_whole_codes(here, limit, capsys):  # noqa: F811
    """Codes of an earlier run stay, and all new codes are whole."""
    before = contents()
    limit(150)  # bytes; a code takes about 200 to 500
    for folder in ("codes", "new"):
        assert run(make_qr.main, folder, "--count", 4, "--seed", 1) == 2
        check_sentence(capsys.readouterr().err, f"{folder} can't be filled: File too large. The codes in it are whole.")
    limit(-1)
    assert contents() == before | {"new": "folder"}
    assert run(make_qr.main, "new", "--count", 4) == 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(
    ("locked", "mode", "folder", "words"),
    [
        (".", 0o555, "new", "new: Permission denied."),
        ("codes", 0o555, "codes", "codes can't be filled: Permission denied. The codes in it are whole."),
        ("codes", 0o300, "codes", "codes: Permission denied."),  # writable, but not readable
    ],
)
def test_no_permission(monkeypatch, capsys, locked, mode, folder, words):
    pytest.importorskip("qrcode")
    place = Path(tempfile.mkdtemp())  # any user may enter its parents, unlike those of pytest's folders
    monkeypatch.chdir(place)
    assert run(make_qr.main, "codes", "--count", 4) == 0
    for path in (place, *place.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    before = contents()
    (place / locked).chmod(mode)
    if os.geteuid() == 0:
        shutil.chown(place / locked, 65534)
    try:
        with without_privileges(monkeypatch):
            assert run(make_qr.main, folder, "--count", 4, "--seed", 1) == 2
    finally:
        (place / locked).chmod(0o777)
        after = contents()
        monkeypatch.chdir("/")
        shutil.rmtree(place)
    check_sentence(capsys.readouterr().err, words)
    assert after == before


def test_ctrl_c_leaves_whole_codes(here, monkeypatch, capsys):
    @contextmanager
    def press(total, unit):
        counts = iter(range(1, total + 1))
        yield lambda count: signal.raise_signal(signal.SIGINT) if next(counts) == 3 else None

    monkeypatch.setattr(make_qr, "progress", press)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        assert run(make_qr.main, "new", "--count", 8) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err == "tinysrgan: stopped. The codes that were made so far are whole.\n"
    assert len(list(Path("new").iterdir())) == 3


def test_no_traceback_from_a_real_shell(here):
    """Check the same errors in a separate process."""
    before = contents()
    for line, words in ((["photos"], "photos holds other files"), (["new", "--count", "0"], NUMBERS)):
        done = python(MAKE_QR, *line, stdout=subprocess.PIPE)
        assert (done.returncode, done.stdout) == (2, "")
        check_sentence(done.stderr, words)
    assert contents() == before
