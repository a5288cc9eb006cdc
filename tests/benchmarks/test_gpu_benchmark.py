"""The GPU's rows compare like with like: counted on the CPU, run on the stand-in for CuPy, a graph pretended."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("torch", reason="PyTorch, to compare with, is not installed")

import torch
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.cases import CASES, GPU_CASES, NETS, Case, flops
from benchmarks.peers import tinysrgan_peer, torch_muon, torch_peer
from benchmarks.worker import in_a_row
from tinysrgan.layers import Parameter
from tinysrgan.optimizers.muon import Muon
from tinysrgan.training.config import PRESETS, Options

TINY = {"batch": 2, "size": 8, "blocks": 2, "filters": 4}
STEPS = [(net, work) for net in NETS for work in ("adversarial", "pretrain")]


@pytest.fixture(autouse=True)
def same_flags():
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def on_cpu(case: Case, **changes) -> Case:
    return replace(case, device="cpu", **changes)


def test_the_rows():
    names = [case.name for case in GPU_CASES]
    assert len(set(names)) == len(names) and all(case.device == "cuda" for case in GPU_CASES)
    assert not any(case.device == "cuda" for case in CASES)
    for net in NETS:
        assert {f"training step, {net}, batch {batch}" for batch in (1, 4, 16, 32)} < set(names)
        assert {f"upscaling {size}x{size}, {net}" for size in (32, 128, 512)} < set(names)
    assert {case.name for case in GPU_CASES if case.exact} == {f"strict float32, {net}, batch 16" for net in NETS}


@pytest.mark.parametrize("net", NETS)
def test_nets_are_the_presets(net):
    options = Options(**PRESETS[net])
    case = Case(net, "adversarial", **NETS[net])
    found = case.hr_size, case.blocks, case.filters, case.upscale, case.dense, case.content, case.optimizer
    o = options
    assert found == (*(o.hr_size, o.blocks, o.filters, o.upscale, o.discriminator_dense, o.content_loss, o.optimizer),)
    assert (case.discriminator_filters or case.filters) == o.discriminator_filters


@pytest.mark.parametrize(("net", "work"), STEPS)
def test_steps_do_the_same_work(net, work):
    """PyTorch's counter finds as many operations; Muon's are left out on both sides. The nets have the same sizes."""
    case = Case(net, work, **NETS[net] | TINY | {"optimizer": "adam"})
    run = torch_peer.prepare(case, "eager")
    with FlopCounterMode(display=False) as counter:
        run()
    assert counter.get_total_flops() == flops(case)
    ours = tinysrgan_peer.build(case)
    theirs = torch_peer.generator(case), torch_peer.discriminator(case)
    for a, b in zip((ours.generator, ours.discriminator), theirs, strict=True):
        assert sum(p.value.size for p in a.parameters().values()) == sum(p.numel() for p in b.parameters())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("work", ["y", "dx", "dw"])
def test_layers_do_the_same_work(work, stride):
    case = Case("", work, batch=3, layer=(8, 4, 6, 3, stride))
    run = torch_peer.prepare(case, "eager")
    with FlopCounterMode(display=False) as counter:
        found = run()
    assert counter.get_total_flops() == flops(case)
    shape = found.shape if work == "y" else next(array.shape for array in found if array is not None)
    ours = tinysrgan_peer.prepare(case)().shape
    assert sorted(shape) == sorted(ours)


def test_muon_steps_as_ours_does():
    net = torch.nn.Sequential(torch.nn.Conv2d(5, 8, 3), torch.nn.Conv2d(8, 4, 3), torch.nn.Conv2d(5, 8, 3))
    theirs = torch_muon.Muon(net, lr=0.1)
    assert sorted(len(group) for group in theirs.groups) == [1, 2]
    convs = list(net)
    hwio = lambda array: array.detach().numpy().transpose(2, 3, 1, 0).copy()  # noqa: E731
    ours = Muon({str(i): Parameter(hwio(conv.weight)) for i, conv in enumerate(convs)}, 0.1)
    for step in range(2):
        for i, conv in enumerate(convs):
            torch.manual_seed(10 * step + i)
            conv.weight.grad, conv.bias.grad = torch.randn_like(conv.weight), torch.randn_like(conv.bias)
            ours.matrices[str(i)].grad[...] = hwio(conv.weight.grad)
        theirs.step()
        ours.step()
    for i, conv in enumerate(convs):
        np.testing.assert_allclose(hwio(conv.weight), ours.matrices[str(i)].value, rtol=0, atol=1e-4)


def test_strict_float32_is_strict_in_both():
    case = Case("", "y", batch=1, layer=(8, 4, 6, 3, 1))
    for exact in (True, False):
        torch_peer.prepare(replace(case, exact=exact), "eager")
        flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
        assert flags == (not exact, not exact, True)


@pytest.mark.kernels
@pytest.mark.tensor_cores
@pytest.mark.parametrize("exact", [False, True])
def test_ours_takes_tensor_cores_unless_strict(monkeypatch, exact):
    from tinysrgan.ops.cuda import conv_tf32

    taken = []
    usual = conv_tf32.conv2d
    monkeypatch.setattr(conv_tf32, "conv2d", lambda *arguments: taken.append(1) or usual(*arguments))
    with cupy_on_cpu() as cupy:
        y = tinysrgan_peer.prepare(Case("", "y", device="cuda", exact=exact, layer=(4, 32, 32, 3, 1)))()
        assert isinstance(y, cupy.ndarray) and bool(taken) != exact
        tinysrgan_peer.wait_for_gpu()
        assert tinysrgan_peer.gpu_memory() >= 0


@pytest.mark.kernels
@pytest.mark.parametrize("work", ["pretrain", "adversarial", "inference"])
def test_ours_runs_on_the_gpu(work):
    case = Case("", work, device="cuda", **NETS["qr"] | {"size": 4, "blocks": 1, "filters": 4, "dense": 8})
    with cupy_on_cpu():
        run = tinysrgan_peer.prepare(replace(case, discriminator_filters=4))
        for _ in range(3):  # a step is captured as a CUDA graph in the second or third
            run()


def test_compiled_means_every_net(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(net) or net)
    case = Case("", "adversarial", **TINY)
    torch_peer.prepare(case, "eager")
    assert not compiled
    torch_peer.prepare(case, "torch.compile")()
    assert len(compiled) == 3


@pytest.mark.parametrize("quick", [False, True])
def test_pytorch_runs_in_three_ways_and_quickly_in_two(monkeypatch, quick):
    monkeypatch.setattr(command.subprocess, "run", lambda *_: SimpleNamespace(returncode=0))  # PyTorch sees a GPU
    found = {one.mode for one in command.gpu_peers(quick)}
    assert found == ({"eager", "CUDA graph"} if quick else {"eager", "CUDA graph", "torch.compile"})


class Pretended:
    """A CUDA graph that captures calls: within ``with``, work is recorded, and ``replay`` counts."""

    replays = 0

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait_stream(self, stream):
        pass

    def replay(self):
        Pretended.replays += 1


def test_a_graph_is_captured_once_and_replayed(monkeypatch):
    for name in ("Stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, Pretended, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", Pretended)
    runs = []
    replay = torch_peer.graph_of(lambda: runs.append(1) or "result")
    assert len(runs) == 4 and Pretended.replays == 0
    assert replay() == replay() == "result"
    assert len(runs) == 4 and Pretended.replays == 2


@pytest.mark.parametrize("mode", ["eager", "CUDA graph"])
def test_upscaling_goes_from_8_bits_to_8_bits(monkeypatch, mode):
    """As on a GPU, which "meta" tensors pretend to be: they have shapes and types, but no values."""
    monkeypatch.setattr(torch_peer, "graph_of", lambda run: run)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor)
    y = torch_peer.prepare(Case("", "inference", device="meta", size=8, blocks=1, filters=4), mode)()
    assert (tuple(y.shape), y.dtype) == ((1, 32, 32, 3), torch.uint8)


def test_runs_in_a_row_wait_once(monkeypatch):
    clock = iter(np.arange(0, 1000, 0.03))  # a run takes 0.03 seconds
    monkeypatch.setattr("benchmarks.worker.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    events = []
    several, count = in_a_row(lambda: events.append("run"), lambda: events.append("wait"))
    assert count == 3
    events.clear()
    several()
    assert events == ["run"] * 3 + ["wait"]


def test_the_report_names_the_gpu_and_every_way_to_run_pytorch(tmp_path):
    one = [{"name": "x", "mode": "", "seconds": [0.001, 0.002], "peak_memory": 10**9}]
    found = {report.OURS: one} | dict.fromkeys(report.GPU_PEERS, one)
    machine = {"cpu": "C", "gpu": "GPU 1", "cores": 2, "date": "today", "versions": ["x"], "python": "3", "system": "s"}
    alone = report.row(GPU_CASES[1], {report.OURS: one})
    results = {"machine": machine | {"blas": {report.OURS: {}}}, "rows": [alone, report.row(GPU_CASES[0], found)]}
    text = report.write(results, tmp_path, "name")
    assert text.startswith("# GPU 1, 2 cores") and "TFLOP/s" in text and "sgemm" not in text
    assert all(f"times as fast as {peer} |" in text for peer in report.GPU_PEERS)
    assert "| failed | failed | failed |" in text and "TF32" in text and (tmp_path / "name.png").exists()


def test_a_peer_that_fails_is_left_out_and_ours_is_not(monkeypatch, capsys):
    def child(module, one, case, seconds):
        if one.mode == broken:
            raise command.subprocess.CalledProcessError(1, [], stderr="Traceback\nout of memory\n")
        return {"seconds": [1]}

    monkeypatch.setattr(command, "child", child)
    ours = command.Contestant(report.OURS, "tinysrgan_peer", "ours")
    theirs = command.Contestant("PyTorch", "torch_peer", "eager")
    broken = "eager"
    assert command.measure_case(GPU_CASES[0], [ours, theirs], 2, 1) == {report.OURS: [{"seconds": [1]}] * 2}
    assert "PyTorch eager failed: out of memory" in capsys.readouterr().out
    broken = "ours"
    with pytest.raises(command.subprocess.CalledProcessError):
        command.measure_case(GPU_CASES[0], [ours, theirs], 2, 1)


def test_without_a_gpu_the_command_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(command.sys.modules, "cupy", None)
    assert command.main(["--device", "cuda", "--quick", "--out", str(tmp_path)]) == 2
    assert "--device cuda doesn't work here: CuPy is not installed" in capsys.readouterr().err
    assert command.gpu_peers(quick=True) == [] or torch.cuda.is_available()


def test_rows_by_several_names(capsys):
    assert command.main(["--device", "cuda", "--rows", "sideways|upwards"]) == 2
    assert "training step, paper, batch 16" in capsys.readouterr().err
    assert command.main(["--rows", "sideways|small", "--device", "cuda"]) == 2
