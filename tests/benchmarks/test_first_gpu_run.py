"""The first minutes on a GPU: all steps work on the stand-in, and none of them stops the others."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import first_gpu_run
from benchmarks.first_gpu_run import Step, main, perform, steps

ROOT = Path(__file__).parents[2]
NEEDS_A_GPU = {"driver", "memcheck", "racecheck", "synccheck", "profile of the GPU"}


@pytest.mark.kernels
@pytest.mark.cpu_only
def test_it_runs_to_its_end_on_the_stand_in(tmp_path):
    folder = tmp_path / "with a space"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_gpu_run", str(folder), "--short"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "stand_in")))},
        capture_output=True,
        text=True,
    )
    summary = (folder / "summary.txt").read_text()
    assert done.stdout == summary
    for line, step in zip(summary.splitlines(), steps(folder, short=True), strict=True):
        assert line.startswith(step.name) and (line.endswith("ok") or step.name in NEEDS_A_GPU), done.stdout
    printed = {file.name[3:-4]: file.read_text() for file in folder.glob("[0-9]*.txt")}
    assert len(printed) == len(summary.splitlines())
    assert "on the GPU" in printed["one-kernel-against-CuPy"] and "on the CPU" in printed["evaluate-on-both"]
    assert "passed" in printed["kernels"] and "passed" in printed["training-steps"]
    assert (folder / "first" / "generator.h5").exists() and [*(folder / "speed").glob("*.md")]


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (Step("", 60, ["true", "true"]), "ok"),
        (Step("", 60, ["false", "true"]), "FAILED: exit code 1"),
        (Step("", 60, ["echo much", "sh -c 'exit 2'"], code=2, says="much"), "ok"),
        (Step("", 60, ["sh -c 'exit 2'", "sh -c 'exit 2'"], code=2), "FAILED: exit code 2"),
        (Step("", 60, ["true"], code=2), "FAILED: exit code 0 instead of 2"),
        (Step("", 60, ["echo little"], says="much"), "FAILED: it doesn't say 'much'"),
        (Step("", 60, ["no-such-program --help"]), "skipped: no-such-program is not installed"),
        (Step("", 1, ["sleep 1000"]), "FAILED: stopped after 1 seconds"),
    ],
)
def test_how_a_step_ends(tmp_path, step, outcome):
    assert perform(step, tmp_path / "output.txt") == outcome


def test_a_step_that_takes_too_long_ends_with_all_that_it_started(tmp_path):
    perform(Step("", 1, ["sh -c 'sleep 1000 & echo $!; wait'"]), tmp_path / "output.txt")
    pid = int((tmp_path / "output.txt").read_text().splitlines()[-1])
    end = time.monotonic() + 30  # the system may take a moment to end a process that is not ours to wait for
    while runs(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(pid)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_step_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    some = [Step("wrong", 60, ["sh -c 'echo no; exit 1'"]), Step("right", 60, ["echo yes"])]
    monkeypatch.setattr(first_gpu_run, "steps", lambda folder, short: some)
    assert main([str(tmp_path / "run")]) == 1
    lines = (tmp_path / "run" / "summary.txt").read_text().splitlines()
    assert lines[0].endswith("FAILED: exit code 1") and lines[1].endswith("ok")
    assert "no\n" in (tmp_path / "run" / "01-wrong.txt").read_text()
    assert "yes\n" in (tmp_path / "run" / "02-right.txt").read_text()


def test_an_earlier_run_is_not_written_over(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "Give a new folder" in capsys.readouterr().err
