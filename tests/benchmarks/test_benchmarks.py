"""The benchmark gives all peers the same work, and its command writes a table, a picture and all measurements."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from benchmarks import __main__ as command
from benchmarks import data_pipeline, report
from benchmarks.cases import SCALE, VGG_LAYER, Case, flops
from benchmarks.peers import tinysrgan_peer
from benchmarks.worker import times
from tinysrgan.models import VGG19, Discriminator, Generator

ROOT = Path(__file__).parents[2]
WORKS = ("adversarial", "pretrain", "inference")
UPSCALES = ("shuffle", "nearest")


def tiny(work: str, upscale: str) -> Case:
    return Case("tiny", work, upscale, batch=2, size=8, blocks=2, filters=4)


def size(net) -> int:
    return sum(parameter.value.size for parameter in net.parameters().values())


@pytest.mark.parametrize("upscale", UPSCALES)
def test_operations_are_those_of_the_article(upscale):
    """Counted by hand from the article's table of layers: G, D and VGG19 on 32x32 to 128x128 pixels."""
    expected = {"shuffle": (4.54, 65.1), "nearest": (9.70, 85.7)}[upscale]
    forward = flops(Case("", "inference", upscale)) / 1e9
    step = flops(Case("", "adversarial", upscale, batch=8)) / 8e9
    assert (round(forward, 2), round(step, 1)) == expected


@pytest.mark.parametrize("work", WORKS)
def test_our_side_does_the_work(work):
    """A training step changes every parameter of the trained nets, and upscaling returns an enlarged image."""
    case = tiny(work, "shuffle")
    if work == "inference":
        assert tinysrgan_peer.prepare(case)().shape == (case.hr_size, case.hr_size, 3)
        return
    built = []
    original = tinysrgan_peer.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinysrgan_peer, "build", lambda *given: built.append(original(*given)) or built[0])
        run = tinysrgan_peer.prepare(case)
    nets = [built[0].generator, built[0].discriminator][: 2 if work == "adversarial" else 1]
    before = [{name: p.value.copy() for name, p in net.parameters().items()} for net in nets]
    run()
    for net, old in zip(nets, before, strict=True):
        still = [name for name, p in net.parameters().items() if np.array_equal(p.value, old[name])]
        assert not still


@pytest.fixture(scope="module")
def torch_peer():
    pytest.importorskip("torch", reason="PyTorch, to compare with, is not installed")
    from benchmarks.peers import torch_peer

    return torch_peer


@pytest.mark.parametrize("upscale", UPSCALES)
def test_torch_has_as_many_parameters(torch_peer, upscale):
    case = tiny("adversarial", upscale)
    ours = tinysrgan_peer.build(case)
    theirs = torch_peer.generator(case), torch_peer.discriminator(case), torch_peer.vgg19()
    count = [sum(parameter.numel() for parameter in net.parameters()) for net in theirs]
    assert count == [size(ours.generator), size(ours.discriminator), size(VGG19(VGG_LAYER))]


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("upscale", UPSCALES)
def test_torch_computes_as_much(torch_peer, work, upscale):
    """PyTorch's counter finds the same number of operations that the table divides by the time."""
    from torch.utils.flop_counter import FlopCounterMode

    case = tiny(work, upscale)
    run = torch_peer.prepare(case)
    with FlopCounterMode(display=False) as counter:
        run()
    assert counter.get_total_flops() == flops(case)


@pytest.mark.skipif(not (find_spec("keras") and find_spec("tensorflow")), reason="Keras, to compare with, is not there")
@pytest.mark.parametrize("upscale", UPSCALES)
def test_keras_has_as_many_parameters(upscale):
    from benchmarks.peers import keras_peer

    case = Case("", "adversarial", upscale, size=32, blocks=2, filters=4)
    ours = Generator(2, 4, SCALE, upscale), Discriminator(128, 4, 1024), VGG19(VGG_LAYER)
    theirs = keras_peer.generator(case), keras_peer.discriminator(case), keras_peer.vgg19(128)
    trained = [sum(np.prod(weight.shape) for weight in net.trainable_weights) for net in theirs[:2]]
    assert [*trained, theirs[2].count_params()] == [size(net) for net in ours]


def test_the_first_run_does_not_count():
    calls = iter(range(1000))
    assert len(times(lambda: next(calls), 0)) == 2
    assert next(calls) == 3


def test_ratios_and_their_spread():
    def rounds(*seconds):
        return report.summary([{"seconds": one, "peak_memory": sum(one), "mode": ""} for one in seconds])

    ours, peer = rounds([1, 1, 4], [1, 2, 3], [2, 2]), rounds([2, 2, 2], [6, 6], [8, 8])
    assert (ours["median"], ours["least"], ours["most"], ours["peak_memory"]) == (2, 1, 4, 6)
    assert report.times_as_fast(ours, peer) == (3, 2, 4)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_the_command(tmp_path):
    """Run the command with all installed peers on a tiny net."""
    done = run("--quick", "--rows", "upscaling 32x32, pixel", "--blocks", "1", "--filters", "4", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (table,), (numbers,), (picture,) = (list(tmp_path.glob(f"*.{ending}")) for ending in ("md", "json", "png"))
    results = json.loads(numbers.read_text())
    assert [row["case"]["name"] for row in results["rows"]] == ["upscaling 32x32, pixel shuffle"]
    expected = {"PyTorch"} if find_spec("torch") else set()
    for row in results["rows"]:
        assert expected | {"tinysrgan"} <= row["results"].keys()
        assert all(0 < one["least"] <= one["median"] <= one["most"] for one in row["results"].values())
        assert all(20e6 < one["peak_memory"] < 20e9 for one in row["results"].values())
    assert results["machine"]["blas"]["tinysrgan"]["sgemm_one_thread"] > 0
    text = table.read_text()
    assert "| upscaling 32x32, pixel shuffle |" in text
    assert picture.name in text and Image.open(picture).width > 500
    assert str(Path.home()) not in text + numbers.read_text() and os.uname().nodename not in text + numbers.read_text()


def test_alone(tmp_path, monkeypatch, capsys):
    """Without peers, tinysrgan alone is measured, and one line reports it."""
    monkeypatch.setattr(command, "peers", list)
    monkeypatch.setattr(command, "AVX512_CORES", ())  # one run suffices here
    options = ["--quick", "--rows", "upscaling 32x32, pixel", "--blocks", "1", "--filters", "4", "--out", str(tmp_path)]
    assert command.main(options) == 0
    assert "Neither PyTorch nor Keras is here: tinysrgan alone." in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 3


def test_no_such_row(capsys):
    assert command.main(["--rows", "sideways"]) == 2
    assert "no row has 'sideways'" in capsys.readouterr().err


def test_waiting_for_data_is_noticed():
    """The wait for a slow batch is measured."""
    slow = (time.sleep(0.05) for _ in range(3))
    waits = data_pipeline.turn(lambda batch: None, slow, seconds=60)
    assert len(waits) == 2 and all(0.05 <= wait <= total for wait, total in waits)


def test_data_pipeline(capsys, monkeypatch):
    monkeypatch.setattr(data_pipeline, "ROWS", (("qr", "article"),))
    data_pipeline.main(["--rounds", "1", "--seconds", "0.5"])
    *_, row = capsys.readouterr().out.splitlines()
    assert re.match(r"\| qr, article \| [\d.]+ ms \| [\d.]+ ms \| [\d.]+ ms \([-+][\d.]+ %\) \| [\d.]+ ms \(", row)
