"""The processes that mpiexec started to do one job together: who they are, what they exchange, how they end.

Without mpiexec there is one rank, 0 of 1: nothing is exchanged, and mpi4py is not imported. All processes run the same
command. Rank 0 speaks and writes; the others are silent, but for an error of their own.
"""

from __future__ import annotations

import io
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from typing import Any, TextIO, TypeVar

import numpy as np

from tinysrgan.core.device import Array, array_module, reason
from tinysrgan.core.errors import UserError
from tinysrgan.core.quiet import quiet_decoders

Item = TypeVar("Item")
Result = TypeVar("Result")


def processes() -> int:
    """How many processes mpiexec (MPICH's, Intel's, Open MPI's) or Slurm's srun says that it started; else 1."""
    names = ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", *["SLURM_STEP_NUM_TASKS"] * ("PMIX_RANK" in os.environ)]
    return max(int(count) if (count := os.environ.get(name, "")).isdecimal() else 1 for name in names)


class Ranks:
    """One process alone. ``MPIRanks`` does the same for several."""

    rank, size = 0, 1
    local_rank = 0  # among those of this machine: which GPU to take

    def part(self, count: int) -> slice:
        """This rank's part of so many items. Parts differ by one item at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, x: Array) -> None:
        """Replace x by the sum of all ranks' x, alike to the bit on every rank."""

    def collect(self, x: np.ndarray) -> None:
        """Make x the same on every rank: each rank's ``part`` of the rows comes from that rank."""

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank; on every rank."""
        return [value]

    def first(self, value: Result) -> Result:
        """Rank 0's value, on every rank."""
        return value

    def abort(self, code: int) -> None:
        """End all ranks, this one too, with an exit code."""

    def map(self, work: Callable[[Item], Result], items: Sequence[Item], block: int = 10**9) -> Iterator[Result]:
        """Share the items out and yield work(item) for every item, in order, on every rank.

        A rank takes every ``size``-th item and may speak meanwhile. After ``block`` items of its own it exchanges the
        results: they may be too many to keep.
        """
        return map(work, items)


class MPIRanks(Ranks):
    """The processes of MPI's world. Arrays on a GPU are summed by NCCL, else by MPI, else over the host's memory."""

    def __init__(self) -> None:
        """Raises UserError if there is no mpi4py, or one that mpiexec's processes don't meet in."""
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise UserError(
                f'mpiexec started this, but mpi4py can\'t be used ({reason(error)}): pip install "tinysrgan[mpi]".'
            ) from None
        self.mpi, self.world = MPI, MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size
        if self.size < processes():
            raise UserError("mpi4py belongs to another MPI than this mpiexec: take the mpiexec beside this Python.")
        hosts = self.gather(socket.gethostname())
        self.local_rank = hosts[: self.rank].count(hosts[self.rank])
        if hasattr(os, "sched_getaffinity"):  # the cores are shared by the ranks that may use them
            cores = self.gather({(hosts[self.rank], core) for core in os.sched_getaffinity(0)})
            sharers = Counter(core for of_a_rank in cores for core in of_a_rank)
            threads = max(1, round(sum(1 / sharers[core] for core in cores[self.rank])))
            os.environ.setdefault("TINYSRGAN_THREADS", str(threads))
        self._sum_on_gpu: Callable[[Array], None] | None = None

    def sum(self, x: Array) -> None:
        if array_module(x) is np:
            self.world.Allreduce(self.mpi.IN_PLACE, x)
            return
        self._sum_on_gpu = self._sum_on_gpu or self._choose(array_module(x))
        self._sum_on_gpu(x)

    def collect(self, x: np.ndarray) -> None:
        starts = [len(x) * rank // self.size * x[0].size for rank in range(self.size + 1)]
        counts = [stop - start for start, stop in pairwise(starts)]
        self.world.Iallgatherv(self.mpi.IN_PLACE, [x, counts]).Wait()  # MPICH's Allgatherv halts every 32 KiB

    def _choose(self, cupy: Any) -> Callable[[Array], None]:
        """How to sum arrays on GPUs. Unproven: no machine with several GPUs has run this."""
        nccl: Any = getattr(cupy.cuda, "nccl", None)
        gpu = (socket.gethostname(), cupy.cuda.Device().id) if nccl and nccl.available else None
        gpus = self.gather(gpu)
        if None not in gpus and len({*gpus}) == self.size:  # NCCL takes one rank a GPU
            name = self.first(None if self.rank else nccl.get_unique_id())
            group = nccl.NcclCommunicator(self.size, name, self.rank)
            kinds = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}

            def over_nccl(x: Any) -> None:
                stream = cupy.cuda.get_current_stream().ptr
                group.allReduce(x.data.ptr, x.data.ptr, x.size, kinds[x.dtype.name], nccl.NCCL_SUM, stream)

            return over_nccl

        def over_host(x: Any) -> None:
            host = x.get()
            self.world.Allreduce(self.mpi.IN_PLACE, host)
            x[...] = cupy.asarray(host)

        def over_mpi(x: Array) -> None:
            cupy.cuda.get_current_stream().synchronize()
            self.world.Allreduce(self.mpi.IN_PLACE, x)

        memory = self.world.Get_info().get("mpi_memory_alloc_kinds") or ""  # MPI 4.1's way to say "CUDA-aware"
        return over_mpi if "cuda" in memory else over_host

    def map(self, work: Callable[[Item], Result], items: Sequence[Item], block: int = 10**9) -> Iterator[Result]:
        for start in range(0, len(items), block * self.size):
            part = items[start : start + block * self.size]
            with _all_speak():
                own = [work(item) for item in part[self.rank :: self.size]]
            results = [iter(of_a_rank) for of_a_rank in self.gather(own)]
            yield from (next(results[i % self.size]) for i in range(len(part)))

    def gather(self, value: Any) -> list[Any]:
        return self.world.allgather(value)

    def first(self, value: Result) -> Result:
        return self.world.bcast(value)

    def abort(self, code: int) -> None:
        with quiet_decoders():  # MPI's own words about it
            self.world.Abort(code)


ALONE = _ranks = Ranks()
_voices: tuple[TextIO, TextIO] | None = None


def ranks() -> Ranks:
    """The processes that do this job: this one alone, unless a command has begun under mpiexec."""
    return _ranks


@contextmanager
def started() -> Iterator[None]:
    """Join the other processes if mpiexec started this one; inside, only rank 0 prints. Raises UserError."""
    global _ranks, _voices
    if _ranks.size > 1 or processes() == 1:
        yield
        return
    _ranks = MPIRanks()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whole lines, or those of two ranks may mix
            stream.reconfigure(line_buffering=True, write_through=False)
    if _ranks.rank == 0:
        yield
        return
    _voices = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def _all_speak() -> Iterator[None]:
    """Inside, each rank prints."""
    output, errors = _voices or (sys.stdout, sys.stderr)
    with redirect_stdout(output), redirect_stderr(errors):
        yield


def patience() -> float:
    """Seconds before a rank tells of an error: rank 0 may be about to tell of the same, and to end them all."""
    return 2 + 8 * _ranks.rank / _ranks.size if _ranks.rank else 0.0
