"""Training steps as CUDA graphs give what the same steps give launch by launch, bit for bit.

Batches, learning rates and the kinds of steps change; losses are read at the end, as the log does.
"""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu.cupy_on_cpu import counting, cupy_on_cpu, no_reading
from planted import plant_in_module

from tinysrgan.core.device import to_device
from tinysrgan.models import VGG19
from tinysrgan.ops.cuda import adam, muon, settings
from tinysrgan.train import adversarial_step, main, pretrain_step
from tinysrgan.training import step_graph
from tinysrgan.training.config import Options
from tinysrgan.training.saving import parts
from tinysrgan.training.srgan import SRGAN
from tinysrgan.training.step_graph import StepGraphs

pytestmark = pytest.mark.kernels

SMALL = Options(hr_size=8, blocks=1, filters=4, discriminator_filters=2, discriminator_dense=4, ema=0.9)
OPTIONS = {"muon, pixels": SMALL, "adam, VGG": replace(SMALL, optimizer="adam", content_loss="vgg")}
TIMES = ("seconds", "images/s")
STEPS = (pretrain_step,) * 3 + (adversarial_step,) * 6
FEW = STEPS[:3]  # one as it is, one captured, one more


@pytest.fixture(autouse=True)
def every_second_step_logs_probabilities(monkeypatch):
    """So that a few steps are of both kinds, each eager, then captured, then launched again."""
    monkeypatch.setattr(SRGAN, "logs_probabilities", property(lambda self: self.discriminator_optimizer.steps % 4 == 0))


def build(cupy, options) -> SRGAN:
    return SRGAN.build(options, None if options.content_loss == "pixels" else VGG19("block1_conv1"), cupy)


def batch(cupy, number, size=2):
    rng = np.random.default_rng(number)
    sides = SMALL.hr_size // SMALL.scale, SMALL.hr_size
    return [cupy.asarray(rng.uniform(-1, 1, (size, side, side, 3)).astype(np.float32)) for side in sides]


def train(cupy, options, make=StepGraphs, steps=STEPS):
    """All that training changes: losses, D(real) and D(fake), both nets and their average, the optimizers."""
    srgan = build(cupy, options)
    take, losses = make(srgan), []
    with no_reading():
        for number, step in enumerate(steps):
            srgan.set_learning_rate(1e-3 / (1 + number))
            losses.append(take(step, *batch(cupy, number)))
            srgan.average.update(srgan.generator_optimizer.steps)
    found = {f"step {i} {name}": loss for i, step in enumerate(losses) for name, loss in step.items()}
    nets, optimizers = parts(srgan)
    for name, net in nets.items():
        found |= {f"{name} {key}": tensor.value for key, tensor in net.tensors().items()}
    for name, optimizer in optimizers.items():
        found |= {f"m of {name} {key}": m for key, m in optimizer.m.items()}
        found[f"steps of {name}"] = optimizer.steps
    return {name: to_device(value, np) for name, value in found.items()}


@cache
def expected(name="muon, pixels", steps=STEPS):
    """The same, launch by launch."""
    with cupy_on_cpu() as cupy:
        return train(cupy, OPTIONS[name], lambda srgan: lambda step, lr, hr: step(srgan, lr, hr), steps)


def assert_equal(found, right):
    assert found.keys() == right.keys()
    for name, value in right.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", OPTIONS)
def test_graphs_give_what_single_launches_give(cupy, name, capsys):
    found = train(cupy, OPTIONS[name])
    assert_equal(found, expected(name))
    assert all(np.isfinite(value).all() for value in found.values())
    assert sum(key.endswith("D(real)") for key in found) == 3
    assert "graph" not in capsys.readouterr().err


FAULTS = {
    "the batch of the capture": (step_graph, "np.copyto(self.hr, hr)", "pass"),
    "the rate of the capture": (step_graph, "self.settings.refresh()", "self.settings.sources.clear()"),
    "losses that the next step overwrites": (step_graph, "copied(loss)", "loss"),
    "one kind of step": (step_graph, ", self.srgan.logs_probabilities", ""),
}


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_graphs_are_found(cupy, fault):
    steps = STEPS if fault == "one kind of step" else FEW
    found = train(cupy, SMALL, plant_in_module(*FAULTS[fault]).StepGraphs, steps)
    with pytest.raises(AssertionError):
        assert_equal(found, expected(steps=steps))


@pytest.mark.cpu_only
@pytest.mark.parametrize("launcher", [adam, muon])
def test_a_rate_that_is_an_argument_is_found(cupy, monkeypatch, launcher):
    """The graph would repeat the rate of its capture."""

    def as_arguments(xp, source):
        return xp.concatenate([xp.full(1, number) for number in source().values()])

    monkeypatch.setattr(launcher, "on_device", as_arguments)
    found = train(cupy, SMALL, steps=FEW)
    with pytest.raises(AssertionError):
        assert_equal(found, expected(steps=FEW))


@pytest.mark.cpu_only
def test_arrays_of_others_are_not_those_of_the_graph(cupy):
    wrong = plant_in_module(
        step_graph, "using_allocator(pool.malloc", "using_allocator(cupy.get_default_memory_pool().malloc"
    )
    with pytest.raises(AssertionError, match="others will get the memory"):
        train(cupy, SMALL, wrong.StepGraphs, FEW)


@pytest.mark.cpu_only
def test_each_kind_of_step_is_captured_once_and_then_one_launch(cupy, monkeypatch):
    srgan = build(cupy, SMALL)
    take, counts = StepGraphs(srgan), []
    for number, step in enumerate([*STEPS, adversarial_step, adversarial_step]):
        lr, hr = batch(cupy, number, size=1 if number == len(STEPS) else 2)
        with counting() as found:
            take(step, lr, hr)
        counts.append((found.own.total(), found.cupy.total(), found.graphs))

    def captured(count):
        return (*count[:2], 1)

    first, logging, plain, small, graph = counts[0], counts[3], counts[4], counts[9], (0, 0, 1)
    assert logging[0] > plain[0] and first[2] == logging[2] == plain[2] == 0
    assert counts[:3] == [first, captured(first), graph]
    assert counts[3:9] == [logging, plain, captured(logging), captured(plain), graph, graph]
    assert small[2] == 0 and counts[10] == graph  # a batch of another size is another kind
    freed = []
    monkeypatch.setattr(cupy.cuda.MemoryPool, "free_all_blocks", lambda self: freed.append(self))
    with take:
        pool = take.pool
    assert freed == [pool] and not take.graphs


@pytest.mark.cpu_only
@pytest.mark.parametrize("name", ["float", "asarray", "memory", "driver"])
def test_a_capture_that_fails_is_one_sentence(cupy, monkeypatch, capsys, name):
    """For a value that is read or data that is sent in a step, for lack of memory, for a driver without graphs."""

    def step(srgan, lr, hr):
        losses = adversarial_step(srgan, lr, hr)
        if name == "float":
            float(losses["content"])
        elif name == "asarray":
            cupy.asarray(np.ones(3))
        elif name == "memory" and settings._captured.get():
            raise MemoryError("Out of memory allocating 1,000 bytes")
        return losses

    if name == "driver":
        monkeypatch.setattr(cupy.cuda.Stream, "begin_capture", fail)
    right, found = build(cupy, SMALL), build(cupy, SMALL)
    take = StepGraphs(found)
    for number in range(4):
        losses = take(step, *batch(cupy, number))
        assert losses.keys() == step(right, *batch(cupy, number)).keys()
    for name, tensor in right.generator.tensors().items():
        np.testing.assert_array_equal(found.generator.tensors()[name].value.get(), tensor.value.get())
    assert right.discriminator_optimizer.steps == found.discriminator_optimizer.steps == 8
    error = capsys.readouterr().err
    assert error.count("training goes on without a CUDA graph") == 1 and error.count("\n") == 1


def fail(self):
    raise RuntimeError("cudaErrorNotSupported: operation not supported")


@pytest.mark.cpu_only
def test_where_no_graph_is_wanted_steps_run_as_they_are(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.Stream, "begin_capture", fail)
    for module, options in ((np, SMALL), (cupy, replace(SMALL, no_cuda_graph=True))):
        srgan = build(module, options)
        take = StepGraphs(srgan)
        for number in range(3):
            take(pretrain_step, *batch(module, number))
    shared = build(cupy, SMALL)
    assert StepGraphs(shared).wanted
    shared.parallel.ranks = SimpleNamespace(size=2)
    assert not StepGraphs(shared).wanted


def test_a_run_with_graphs_is_the_run_without(tmp_path, cupy, capsys):
    """Checkpoints, pictures and validation between the launches see the weights of their step."""
    size = "--hr-size 16 --limit 6 --blocks 1 --filters 4 --batch-size 2 --pretrain-steps 3 --steps 3 --ema 0.5".split()
    data = str(Path(__file__).parents[2] / "data" / "qr")
    for name, options in (("with", []), ("without", ["--no-cuda-graph"])):
        run = [data, *size, "--save-every", "2", "--device", "cuda", "--out", str(tmp_path / name), *options]
        assert main(run) == 0
    assert "without a CUDA graph" not in capsys.readouterr().err
    found, right = (list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("with", "without"))
    assert len(found) == len(right) >= 4
    for row, other in zip(found, right, strict=True):
        assert {**row, **dict.fromkeys(TIMES)} == {**other, **dict.fromkeys(TIMES)}
    for file in ("pictures/step-000002.png", "pictures/step-000006.png", "generator.h5"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes(), file
