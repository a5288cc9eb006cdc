"""Several processes of mpiexec compute what one computes, whatever their number; real ones, in every test."""

import re
import shutil
import signal
import time

import mpi
import numpy as np
import pytest
from test_train import ROOT, arrays, assert_same_state, log

from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ALONE, Ranks
from tinysrgan.formats.checkpoint import _arrays, read_state
from tinysrgan.train import adversarial_step, main, pretrain_step
from tinysrgan.training.config import Options
from tinysrgan.training.data_parallel import DataParallel
from tinysrgan.training.saving import load, parts, save
from tinysrgan.training.srgan import SRGAN

pytestmark = mpi.needs_mpi
BATCH = 5  # which 2, 3 and 4 ranks can't share evenly
SMALL = ["data/qr", *"--blocks 1 --filters 4 --batch-size 3 --max-images 9 --hr-size 16 --seed 3 --device cpu".split()]


def steps(parallel, dtype, local=False, count=20, saved=None, resume=None):
    """The losses, and then all that is saved, after two steps of pre-training and 20 adversarial ones.

    ``saved`` is a checkpoint to write after ten steps, or ``resume`` one to go on from.
    """
    options = Options(
        hr_size=16, blocks=1, filters=4, discriminator_filters=2, discriminator_dense=512, local_batch_norm=local
    )
    srgan = SRGAN.build(options, None, np)
    for net in (srgan.generator, srgan.discriminator):
        net.astype(dtype)
    for optimizer in parts(srgan)[1].values():
        optimizer.m, optimizer.v = ({k: x.astype(dtype) for k, x in y.items()} for y in (optimizer.m, optimizer.v))
    if resume:
        load(srgan, resume)
    srgan.share(parallel)
    srgan.set_learning_rate(1e-3)
    rng = np.random.default_rng(0)
    result = {}
    for step in range(count + 2):
        lr, hr = (rng.uniform(-1, 1, (BATCH, side, side, 3)).astype(dtype)[parallel.slice] for side in (4, 16))
        if resume and step < 10:
            continue
        if saved and step == 10:
            save(srgan, saved, {})
        losses = (pretrain_step if step < 2 else adversarial_step)(srgan, lr, hr)
        result |= {f"{step} {name}": loss for name, loss in parallel.average_losses(losses).items()}
    nets, optimizers = parts(srgan)
    return result | _arrays(nets, {name: parallel.whole(optimizer) for name, optimizer in optimizers.items()})


IN_A_PROCESS = """
import sys, numpy as np
from pathlib import Path
from tinysrgan.core.ranks import ranks, started
from test_data_parallel import BATCH, DataParallel, steps
with started():
    for name, local in (("float64", False), ("float32", False), ("float32", True)):
        double, middle = name == "float64", Path(sys.argv[1], "middle.h5")
        parallel = DataParallel(ranks(), BATCH)
        result = steps(parallel, name, local, 20 if double else 4, middle if double else None)
        assert [*map(list, parallel.split.values())] == [["dense.w"]]
        if double:
            ranks().gather(None)  # the checkpoint is there
            again = steps(DataParallel(ranks(), BATCH), name, resume=middle)
            assert all(again[k].tobytes() == result[k].tobytes() for k in again), "resumed, it is another run"
        weights = {k: v.tobytes() for k, v in result.items() if not (local and k.endswith(("mean", "variance")))}
        assert all(of_a_rank == weights for of_a_rank in ranks().gather(weights)), "the ranks' nets differ"
        if ranks().rank == 0:
            np.savez(f"{sys.argv[1]}/{name}{local}.npz", **result)
"""


def assert_close(found, expected, name, tolerance, bias):
    """The gradient of a bias before batch-norm is pure rounding error, which the optimizer magnifies."""
    far = bias if re.search(r"body.*(conv\d?/b|mean)", name) else tolerance
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=far, err_msg=name)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_losses_and_weights_are_those_of_one_process(ranks, tmp_path):
    program = tmp_path / "steps.py"
    folders = [str(ROOT / folder) for folder in ("tests", "tests/training", "tests/commands", "tests/data")]
    program.write_text(f"import sys\nsys.path += {folders}{IN_A_PROCESS}")
    code, _, errors = mpi.run(ranks, program, tmp_path)
    assert code == 0, errors
    for name, count, tolerance, bias in (("float64", 20, 1e-12, 1e-8), ("float32", 4, 1e-4, 1e-2)):
        alone, shared = steps(DataParallel(ALONE, BATCH), name, count=count), np.load(tmp_path / f"{name}False.npz")
        resumed = steps(DataParallel(ALONE, BATCH), name, resume=tmp_path / "middle.h5") if name == "float64" else {}
        for key, value in alone.items():
            assert_close(shared[key], value, key, tolerance, bias)
            if key in resumed:
                assert_close(resumed[key], value, key, tolerance, bias)
    local = np.load(tmp_path / "float32True.npz")
    assert abs(local["generator/tail/w"] - shared["generator/tail/w"]).max() > 1e-5  # another computation


def test_a_rank_gets_at_least_one_image():
    parts = []
    for rank in range(3):
        three = Ranks()
        three.rank, three.size = rank, 3
        parts.append(DataParallel(three, 7))
    assert [i for part in parts for i in range(7)[part.slice]] == [*range(7)]
    assert [part.weight for part in parts] == [2 / 7, 2 / 7, 3 / 7]
    with pytest.raises(UserError, match="--batch-size 2 is too small for 3 processes"):
        DataParallel(three, 2)


def train(ranks, *arguments):
    code, output, errors = mpi.run(ranks, "-m", "tinysrgan.train", *arguments)
    assert code == 0, errors
    return output


AT_STEP_3 = """
import itertools, os, resource, signal, sys, time
import numpy as np
from tinysrgan import train
from tinysrgan.core.ranks import ranks
count, step = itertools.count(1), train.pretrain_step
def pretrain_step(srgan, lr, hr):
    if next(count) == 3 and ranks().rank == {rank}:
        {fault}
    return step(srgan, lr, hr)
train.pretrain_step = pretrain_step
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_run_that_one_rank_s_sigterm_stops_goes_on_with_any_number(tmp_path):
    """Same number, same bytes, also over a stop. Rank 0 alone reports."""
    program = tmp_path / "program.py"
    program.write_text(AT_STEP_3.format(rank=1, fault="os.kill(os.getpid(), signal.SIGTERM)"))
    whole, parts, more, one = (tmp_path / name for name in ("whole", "parts", "more", "one"))
    line = [*SMALL, "--ema", 0.5, "--pretrain-steps", 4, "--steps", 2, "--out"]
    output = train(2, *line, whole)
    assert output.count("in 2 processes") == output.count("Everything is in") == 1
    code, output, errors = mpi.run(2, program, *line, parts)
    assert code == 130 and output.count("Stopped, and all is saved") == 1 and "tinysrgan:" not in errors, errors
    assert read_state(parts / "checkpoint.h5")["step"] == 3
    for copy in (more, one):
        shutil.copytree(parts, copy)
    train(2, "--resume", parts)
    assert_same_state(whole / "checkpoint.h5", parts / "checkpoint.h5")
    assert log(whole) == log(parts)
    train(3, "--resume", more)
    assert main(["--resume", str(one)]) == 0
    expected = arrays(whole / "checkpoint.h5")
    for path in (more, one):
        found = arrays(path / "checkpoint.h5")
        for name in expected:
            if name.startswith(("generator", "discriminator", "average")):
                assert_close(found[name], expected[name], name, 1e-3, 1e-2)


def test_every_rank_s_unusable_files_are_named(tmp_path):
    for i, path in enumerate(sorted((ROOT / "data" / "qr").glob("1*.png"))[:9]):
        (tmp_path / f"{i}.png").write_bytes(path.read_bytes()[: 200 if i % 2 else None])
    output = train(2, tmp_path, *SMALL[1:], "--pretrain-steps", 3, "--steps", 0, "--out", tmp_path / "out")
    for i in (1, 3, 5, 7):
        assert output.count(f"{i}.png") == 1, output


# ---------------------------------------------------------------- how they all end

FAULTS = {
    "not finite": (1, "hr = hr * np.nan", 2, "tinysrgan: Training stopped at step 3: not finite: pixel."),
    "no memory": (1, "raise MemoryError", 2, "tinysrgan: rank 1: There is too little memory for this; try a smaller"),
    "a bug": (1, "lr.fly()", 2, "AttributeError: 'numpy.ndarray' object has no attribute 'fly'"),
    "killed": (1, "os.kill(os.getpid(), signal.SIGKILL)", 9, "signal 9"),
    "full disk": (
        0,
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))",
        2,
        "checkpoint.h5 can't be written: File too large.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_all_ranks_end_together(fault, tmp_path):
    rank, line, code, words = FAULTS[fault]
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(AT_STEP_3.format(rank=rank, fault=line))
    began = time.monotonic()
    found, output, errors = mpi.run(
        2, program, *SMALL, "--pretrain-steps", 9, "--steps", 0, "--save-every", 2, "--out", out
    )
    assert found == code, errors
    assert words in output + errors and errors.count("tinysrgan: ") <= 1, errors
    assert ("Traceback" in errors) == (fault == "a bug")
    assert time.monotonic() - began < 30
    deadline = time.monotonic() + 20  # mpiexec may return before the last rank has given the folder back
    while (resumed := main(["--resume", str(out)])) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert resumed == 0  # from a checkpoint that is whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_mpiexec_saves_and_stops(number, tmp_path):
    out = tmp_path / "out"
    process = mpi.start(2, "-m", "tinysrgan.train", *SMALL, "--pretrain-steps", 10**6, "--save-every", 1, "--out", out)
    while not (out / "checkpoint.h5").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output.count("Stopped, and all is saved") == 1


def test_a_mistake_is_told_once(tmp_path):
    for line, words in (
        (["--batch-size", 2], "--batch-size 2 is too small for 3"),
        (["--blocks", 0], "not a whole number"),
    ):
        code, _, errors = mpi.run(3, "-m", "tinysrgan.train", *SMALL, *line, "--out", tmp_path / "out")
        assert code == 2 and errors.count(words) == 1 and errors.count("rank") == 0, errors
    assert not (tmp_path / "out").exists()
