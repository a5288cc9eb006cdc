"""A whole adversarial step, alone or on several ranks: ``mpiexec -n 2 python -m benchmarks.ranks article``.

Run it with mpiexec and without, in turns and with nothing else running, to see what a machine gains from processes
instead of threads. Prints the median of the steps' seconds, waits for other ranks included, and a rank's peak memory.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from benchmarks.scaling import prepare
from benchmarks.worker import peak_memory
from tinysrgan.core.cli import whole
from tinysrgan.core.ranks import ranks, started
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.train import adversarial_step
from tinysrgan.training.config import PRESETS
from tinysrgan.training.data_parallel import DataParallel


def seconds(preset: str, batch: int, steps: int) -> float:
    """The median time of a step on this rank. The first step is not timed."""
    srgan, taken = prepare(preset), []
    rng, o = np.random.default_rng(0), srgan.options
    hr = rng.uniform(-1, 1, (batch, o.hr_size, o.hr_size, 3)).astype(np.float32)
    lr = hr[:, :: o.scale, :: o.scale].copy()
    parallel = DataParallel(ranks(), batch)
    srgan.share(parallel)
    with single_threaded_blas():
        for _ in range(steps + 1):
            begin = time.perf_counter()
            adversarial_step(srgan, lr[parallel.slice], hr[parallel.slice])
            taken.append(time.perf_counter() - begin)
    return median(taken[1:])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description="Times a step on all ranks.")
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--batch-size", type=whole(1), default=8, help="images of all ranks together (%(default)s)")
    parser.add_argument("--steps", type=whole(1), default=5, help="how many are timed (%(default)s)")
    args = parser.parse_args(arguments)
    with started():
        taken = seconds(args.preset, args.batch_size, args.steps)
        who = f"{ranks().size} ranks" if ranks().size > 1 else "one process"
        if ranks().rank == 0:
            memory = f"{peak_memory() / 2**20:.0f} MiB at most"
            print(f"{args.preset}, batch {args.batch_size}, {who}: {taken:.3f} s a step, {memory} a process")


if __name__ == "__main__":
    main()
