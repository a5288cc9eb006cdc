"""Under mpiexec the commands share out the files of a folder: the same results as from one process, one summary."""

import json
import sys
from types import SimpleNamespace

import mpi
import pytest
from mpi import ROOT
from PIL import Image

from tinysrgan import evaluate, rescue, upscale

pytestmark = mpi.needs_mpi
WEIGHTS = ["--weights", str(ROOT / "weights" / "qr_x4_srresnet.h5"), "--device", "cpu"]


@pytest.fixture
def folder(tmp_path):
    """Five small codes and a file that is none."""
    folder = tmp_path / "codes"
    folder.mkdir()
    for path in sorted((ROOT / "data" / "qr").glob("*-v1.png"))[:5]:
        with Image.open(path) as image:
            image.convert("L").reduce(5).save(folder / path.name)
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}


def shared(module, *arguments):
    return mpi.run(2, "-m", f"tinysrgan.{module}", *arguments)


def test_upscale(folder, tmp_path, capsys):
    assert upscale.main([str(folder), str(tmp_path / "one"), *WEIGHTS]) == 1
    alone = capsys.readouterr().err.splitlines()
    code, _, errors = shared("upscale", folder, tmp_path / "two", *WEIGHTS)
    assert code == 1
    assert sorted(errors.replace("/two", "/one").splitlines()) == sorted(alone)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") and len(contents(tmp_path / "one")) == 5


def test_evaluate(folder, tmp_path, capsys):
    options = [str(folder), *WEIGHTS, "--hr-size", "64"]
    files = [[f"--json={tmp_path / name}.json", f"--picture={tmp_path / name}.png"] for name in ("one", "two")]
    assert evaluate.main([*options, *files[0]]) == 0
    alone = capsys.readouterr()
    assert shared("evaluate", *options, *files[1]) == (0, alone.out, alone.err)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_rescue(folder, tmp_path, capsys):
    assert rescue.main([str(folder), f"--json={tmp_path / 'one'}"]) == 1
    alone = capsys.readouterr()
    code, output, errors = shared("rescue", folder, f"--json={tmp_path / 'two'}")
    assert code == 1
    assert sorted(output.splitlines()) == sorted(alone.out.splitlines())
    assert sorted(errors.splitlines()) == sorted(alone.err.splitlines())
    one, two = (
        [{**found, "seconds": 0} for found in json.loads((tmp_path / name).read_text())] for name in ("one", "two")
    )
    assert one == two


def test_make_qr(tmp_path):
    for ranks, name in ((1, "one"), (3, "three")):
        code, output, errors = mpi.run(ranks, ROOT / "examples" / "make_qr.py", tmp_path / name, "--count", 7)
        assert (code, output) == (0, f"7 QR codes in {tmp_path / name}\n"), errors
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert len([*(tmp_path / "three").iterdir()]) == 7


def test_a_mistake_is_told_once_and_ends_all(tmp_path):
    code, output, errors = shared("upscale", tmp_path / "nothing", tmp_path / "out", *WEIGHTS)
    assert (code, output) == (2, "") and errors == f"tinysrgan: There is no {tmp_path / 'nothing'}.\n"


def test_an_mpi_that_is_not_mpiexec_s_is_told(monkeypatch, capsys):
    monkeypatch.setenv("PMI_SIZE", "2")
    broken = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "mpi4py", broken)  # which has no MPI
    assert upscale.main(["a", "b"]) == 2
    errors = capsys.readouterr().err
    assert 'pip install "tinysrgan[mpi]"' in errors and errors.count("\n") == 1
