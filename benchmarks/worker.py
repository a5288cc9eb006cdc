"""One measurement, in a separate process: ``python -m benchmarks.worker PEER MODE SECONDS CASE``, CASE in JSON.

A fresh process keeps the BLAS libraries and their threads apart, and makes the peak memory that of the case alone.
Prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module

from benchmarks.cases import Case

WARM = 0.3  # seconds of warm-up; at least one run is discarded, since it includes what is done only once
LEAST = 2  # the fewest runs that are timed, however long they take
# On a GPU, so many seconds of runs are timed together, since the GPU would otherwise wait for Python after each run.
TOGETHER, MOST_TOGETHER = 0.1, 50


def times(run: Callable[[], object], seconds: float) -> list[float]:
    """The seconds of each run, for as many runs as fit into ``seconds``, after a warm-up."""
    stop = time.perf_counter() + min(WARM, seconds)
    run()
    while time.perf_counter() < stop:
        run()
    result: list[float] = []
    while len(result) < LEAST or sum(result) < seconds:
        result.append(once(run))
    return result


def once(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def in_a_row(run: Callable[[], object], wait_for_gpu: Callable[[], None]) -> tuple[Callable[[], None], int]:
    """A function that runs several times and then waits for the GPU, and how many times."""

    def several(count: int) -> None:
        for _ in range(count):
            run()
        wait_for_gpu()

    several(3)  # these compile kernels and capture CUDA graphs
    count = max(1, min(MOST_TOGETHER, int(TOGETHER / once(lambda: several(1)))))
    return lambda: several(count), count


def peak_memory() -> int:
    """The peak memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    peer_name, mode, seconds, words = sys.argv[1:]
    case = Case(**json.loads(words))
    peer = import_module(f"benchmarks.peers.{peer_name}")
    run, count = peer.prepare(case, mode), 1
    if case.device == "cuda":
        run, count = in_a_row(run, peer.wait_for_gpu)
    each = [time / count for time in times(run, float(seconds))]
    memory = peer.gpu_memory() if case.device == "cuda" else peak_memory()
    print(json.dumps({"name": peer.NAME, "mode": mode, "seconds": each, "peak_memory": memory}))


if __name__ == "__main__":
    main()
