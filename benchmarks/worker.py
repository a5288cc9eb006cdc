"""One measurement, in a separate process: ``python -m benchmarks.worker PEER LAYOUT SECONDS CASE``, CASE in JSON.

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


def peak_memory() -> int:
    """The peak memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    peer_name, layout, seconds, case = sys.argv[1:]
    peer = import_module(f"benchmarks.peers.{peer_name}")
    seconds_each = times(peer.prepare(Case(**json.loads(case)), layout), float(seconds))
    print(json.dumps({"name": peer.NAME, "layout": layout, "seconds": seconds_each, "peak_memory": peak_memory()}))


if __name__ == "__main__":
    main()
