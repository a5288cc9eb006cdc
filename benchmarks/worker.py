"""One measurement in a process of its own: ``python -m benchmarks.worker PEER LAYOUT SECONDS CASE``, CASE in JSON.

A fresh process because BLAS libraries and their threads get in each other's way, and because only so the peak memory
is the case's own. Prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module

from benchmarks.cases import Case

WARM = 0.3  # seconds; the first run, with all that is only done once, is discarded in any case
LEAST = 2  # runs that are timed, however long they take


def times(run: Callable[[], object], seconds: float) -> list[float]:
    """The seconds that each of as many runs took as fit into ``seconds``, after some that don't count."""
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
    """The most bytes of memory that this process had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    peer_name, layout, seconds, case = sys.argv[1:]
    peer = import_module(f"benchmarks.peers.{peer_name}")
    seconds_each = times(peer.prepare(Case(**json.loads(case)), layout), float(seconds))
    print(json.dumps({"name": peer.NAME, "layout": layout, "seconds": seconds_each, "peak_memory": peak_memory()}))


if __name__ == "__main__":
    main()
