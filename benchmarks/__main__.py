"""tinysrgan beside PyTorch and Keras, where they are installed: ``python -m benchmarks``.

Measures the same training steps and the same generators, in turns, each time in a fresh process, and writes a table,
a picture and all the numbers to benchmarks/results. Takes about 12 minutes on 2 cores, more with Keras; nothing else
should run then. For Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.cases import CASES, Case
from benchmarks.machine import cores, cpu
from tinysrgan.core.cli import real, whole

ROOT = Path(__file__).parents[1]

# Kernels for AVX-512; where OpenBLAS chooses these, it is measured with those for AVX2 ("Haswell") as well.
AVX512_CORES = ("SkylakeX", "Cooperlake", "SapphireRapids")
# What would keep a library from using all cores, or from choosing its kernels.
SETTINGS = ("OPENBLAS_", "OMP_", "MKL_", "TINYSRGAN_")


class Contestant(NamedTuple):
    """Who is measured: under which name, the file in ``peers``, its memory layout, and the core forced on OpenBLAS."""

    name: str
    peer: str
    layout: str = ""
    core: str | None = None


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 when done, 2 for a mistake of the user's, 1 where a measurement failed."""
    words = parser().parse_args(arguments)
    sizes = {name: value for name in ("blocks", "filters") if (value := getattr(words, name)) is not None}
    cases = [replace(case, **sizes) for case in CASES if words.rows in case.name]
    if find_spec("matplotlib") is None:
        print("benchmarks: matplotlib is not installed: pip install -e '.[train]' brings it.", file=sys.stderr)
        return 2
    if not cases:
        names = "; ".join(case.name for case in CASES)
        print(f"benchmarks: no row has '{words.rows}' in its name. The rows: {names}.", file=sys.stderr)
        return 2
    rounds, seconds = (1, 0.5) if words.quick else (words.rounds, words.seconds)
    try:
        results = measure(cases, rounds, seconds)
    except subprocess.CalledProcessError as error:
        print(f"benchmarks: {' '.join(error.cmd[2:])} failed:\n{error.stderr}", file=sys.stderr)
        return 1
    machine = results["machine"]
    label = re.sub(r"\W+", "-", f"{machine['cpu']} {machine['cores']} cores").lower()
    name = f"{machine['date']}-{label}{'-quick' if words.quick else ''}"
    print("\n" + report.write(results, words.out, name))
    print(f"Written to {words.out}: {name}.md, .json and .png")
    return 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n\n")[1])
    add = result.add_argument
    add("--quick", action="store_true", help="a first impression in two minutes: one round, half a second each")
    add("--rounds", type=whole(1), default=3, metavar="N", help="processes for each library and row (3)")
    add("--seconds", type=real(0), default=2, metavar="X", help="how long each measures, at least two runs (2)")
    add("--rows", default="", metavar="TEXT", help="only the rows with this in their name")
    add("--blocks", type=whole(1), metavar="N", help="residual blocks in all rows, instead of each row's own")
    add("--filters", type=whole(1), metavar="N", help="channels in all rows")
    add("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR", help="(benchmarks/results)")
    return result


def measure(cases: list[Case], rounds: int, seconds: float) -> dict[str, Any]:
    """All rows, in turns: the machine, and what every library made of each row."""
    blas = {report.OURS: child("machine")}
    entrants = [Contestant(report.OURS, "tinysrgan_peer")]
    if blas[report.OURS]["core"] in AVX512_CORES:
        blas[report.AVX2] = child("machine", core="Haswell")
        entrants.append(Contestant(report.AVX2, "tinysrgan_peer", core="Haswell"))
    others = peers()
    names = sorted({entrant.name for entrant in others}, reverse=True)
    print(f"Compared with {' and '.join(names)}." if names else "Neither PyTorch nor Keras is here: tinysrgan alone.")
    for entrant, found in zip(entrants, blas.values(), strict=True):
        print(f"{entrant.name}: {report.describe(found)}", flush=True)

    raw = []
    for case in cases:
        raw.append(measure_case(case, [*entrants, *others], rounds, seconds))
        seconds_of = {name: median(t for one in found for t in one["seconds"]) for name, found in raw[-1].items()}
        print(f"{case.name}: {', '.join(f'{name} {1000 * s:.1f} ms' for name, s in seconds_of.items())}", flush=True)
    # The operations are counted last: it takes memory, which the processes above would be charged with.
    return {
        "machine": {
            "cpu": cpu(),
            "cores": cores(),
            "system": f"{platform.system()} {platform.machine()}",
            "date": date.today().isoformat(),
            "versions": sorted({one["name"] for found in raw for results in found.values() for one in results}),
            "python": platform.python_version(),
            "blas": blas,
        },
        "rounds": rounds,
        "rows": [report.row(case, found) for case, found in zip(cases, raw, strict=True)],
    }


def peers() -> list[Contestant]:
    """The other libraries that are installed here."""
    result = []
    if find_spec("torch"):
        result += [Contestant("PyTorch", "torch_peer", layout) for layout in ("channels last", "channels first")]
    if find_spec("keras") and find_spec("tensorflow"):
        result.append(Contestant("Keras", "keras_peer"))
    return result


def measure_case(
    case: Case, contestants: list[Contestant], rounds: int, seconds: float
) -> dict[str, list[dict[str, Any]]]:
    """Let the contestants take turns; of those with the same name, only the fastest goes on after the first round."""
    found = {one: [child("worker", one, case, seconds)] for one in contestants}
    best: dict[str, Contestant] = {}
    for one in contestants:
        rival = best.setdefault(one.name, one)
        if median(found[one][0]["seconds"]) < median(found[rival][0]["seconds"]):
            best[one.name] = one
    for _ in range(rounds - 1):
        for one in best.values():
            found[one].append(child("worker", one, case, seconds))
    return {name: found[one] for name, one in best.items()}


def child(
    module: str, one: Contestant | None = None, case: Case | None = None, seconds: float = 0, core: str | None = None
) -> dict[str, Any]:
    """What benchmarks.machine, or benchmarks.worker for a contestant and a case, prints in a fresh process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    command = [sys.executable, "-m", f"benchmarks.{module}"]
    if one and case:
        core = one.core
        command += [one.peer, one.layout, str(seconds), json.dumps(asdict(case))]
    if core:
        environment["OPENBLAS_CORETYPE"] = core
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
