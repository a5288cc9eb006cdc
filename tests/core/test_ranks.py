"""What the processes of mpiexec exchange, who speaks, and which cores and GPU each takes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import mpi
import numpy as np
import pytest
from cuda_on_cpu import runner

from tinysrgan.core import ranks as module
from tinysrgan.core.ranks import ALONE, MPIRanks, processes


def test_one_process_exchanges_nothing():
    x = np.ones(3)
    ALONE.sum(x)
    ALONE.collect(x)
    assert ALONE.part(5) == slice(0, 5)
    assert x.tolist() == [1, 1, 1] and ALONE.gather(x)[0] is x and ALONE.first(x) is x
    assert list(ALONE.map(lambda i: i * i, range(5), block=2)) == [0, 1, 4, 9, 16]
    assert list(ALONE.map(str, [])) == []


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 1),
        ({"PMI_SIZE": "4"}, 4),
        ({"PMI_SIZE": "abc"}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "0"}, 3),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 1),  # srun without MPI: separate programs
        ({"SLURM_STEP_NUM_TASKS": "8", "PMIX_RANK": "1"}, 8),
    ],
)
def test_who_started_this_process(variables, count, monkeypatch):
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes() == count


def test_mpi_is_imported_only_under_mpiexec():
    code = "import sys; from tinysrgan.train import main; main(['nowhere']); print('mpi4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=mpi.ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n"


EXCHANGE = """
import os, sys
import numpy as np
from tinysrgan.core.ranks import ranks, started
os.environ.pop("TINYSRGAN_THREADS")
with started():
    r = ranks()
    print("rank 0 speaks", file=sys.stderr)
    squares = list(r.map(lambda i: print(i) or i * i, range(7), block=2))
    assert squares == [i * i for i in range(7)], squares
    x = np.full((7, 2), r.rank)
    r.collect(x)
    assert x[:, 0].tolist() == x[:, 1].tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert r.gather(r.rank) == [0, 1, 2] and r.first(r.rank + 5) == 5 and r.local_rank == r.rank
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    assert os.environ.get("TINYSRGAN_THREADS") == (cores and str(max(1, round(cores / 3))))
"""


@mpi.needs_mpi
def test_three_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(EXCHANGE)
    code, output, errors = mpi.run(3, program)
    assert (code, errors) == (0, "rank 0 speaks\n")
    assert sorted(output.split()) == sorted("0123456")


ON_GPU = """
import sys
sys.path.insert(0, "tests")
import numpy as np
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu
from tinysrgan.core.ranks import ALONE, ranks, started
from tinysrgan.layers import BatchNorm
from tinysrgan.ops.device import choose_device
from tinysrgan.optimizers.adam import Adam
from tinysrgan.training.data_parallel import DataParallel
rng = np.random.default_rng(0)
x, dy = rng.normal(5, 2, (2, 5, 3, 4))
def passes(parallel, module):
    layer = BatchNorm(4).astype(np.float64).to(module)
    parallel.share(layer, Adam(layer.parameters()))
    y = layer.forward(module.asarray(x[parallel.slice]))
    dx = layer.backward(module.asarray(dy[parallel.slice] / parallel.weight))
    parallel.average_gradients(layer)
    return y, dx * parallel.weight, layer.gamma.grad, layer.running_variance.value
with started(), cupy_on_cpu() as cupy:
    assert choose_device("cuda")[0] is cupy
    parallel = DataParallel(ranks(), 5)
    parts = [parallel.slice, parallel.slice, ..., ...]
    for found, expected, part in zip(passes(parallel, cupy), passes(DataParallel(ALONE, 5), np), parts):
        np.testing.assert_allclose(found.get(), expected[part], rtol=1e-12, atol=1e-14)
"""


@mpi.needs_mpi
@pytest.mark.skipif(not runner.available, reason="g++ is not installed")
def test_sums_of_gpu_arrays_over_the_host(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(ON_GPU)
    code, _, errors = mpi.run(2, program)
    assert code == 0, errors


@pytest.mark.parametrize(
    ("gpus", "memory", "way"), [([0, 1], "", "nccl"), ([0, 0], "mpi,cuda", "mpi"), ([0, 0], "mpi", "host")]
)
def test_the_way_for_gpu_arrays(gpus, memory, way, monkeypatch):
    """NCCL where each rank has a GPU of its own, else an MPI that takes GPU arrays, else the host. Calls recorded."""
    calls = []
    stream = SimpleNamespace(ptr=7, synchronize=lambda: calls.append("synchronize"))
    group = SimpleNamespace(allReduce=lambda *arguments: calls.append(arguments))
    nccl = SimpleNamespace(
        available=True, NCCL_FLOAT32=11, NCCL_FLOAT64=12, NCCL_SUM=13,
        get_unique_id=lambda: "id", NcclCommunicator=lambda *arguments: calls.append(arguments) or group,
    )  # fmt: skip
    device = SimpleNamespace(id=gpus[1])
    cuda = SimpleNamespace(nccl=nccl, Device=lambda: device, get_current_stream=lambda: stream)
    cupy = SimpleNamespace(cuda=cuda, asarray=lambda host: host)
    monkeypatch.setattr(module, "array_module", lambda x: cupy)
    monkeypatch.setattr(module.socket, "gethostname", lambda: "here")

    class Array(np.ndarray):
        data = SimpleNamespace(ptr=99)

        def get(self):
            return self.view(np.ndarray)

    x = np.ones(3, np.float32).view(Array)
    two = object.__new__(MPIRanks)
    two.rank, two.size, two._sum_on_gpu = 1, 2, None
    two.mpi = SimpleNamespace(IN_PLACE="in place")
    two.world = SimpleNamespace(
        allgather=lambda value: [("here", gpus[0]), value],
        bcast=lambda value: "id" if value is None else "not rank 0",
        Get_info=lambda: {"mpi_memory_alloc_kinds": memory},
        Allreduce=lambda place, y: calls.append(type(y).__name__),
    )
    two.sum(x)
    assert (
        calls
        == {
            "nccl": [(2, "id", 1), (99, 99, 3, 11, 13, 7)],
            "mpi": ["synchronize", "Array"],
            "host": ["ndarray"],
        }[way]
    )
    assert os.environ.get("PMI_SIZE") is None
