"""Compares tinysrgan with PyTorch and Keras, if they are installed: ``python -m benchmarks``.

Measures the same training steps and the same generators, in turns, each time in a fresh process. Writes a table, a
picture and all measurements to benchmarks/results. Takes about 12 minutes on 2 cores, longer with Keras, and an hour or
more on a GPU (--device cuda), where each row of PyTorch is also compiled; nothing else should run meanwhile. For Linux
and macOS.
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
from benchmarks.cases import CASES, GPU_CASES, Case
from benchmarks.machine import cores, cpu
from tinysrgan.core.cli import real, whole
from tinysrgan.core.errors import UserError
from tinysrgan.ops.device import choose_device

ROOT = Path(__file__).parents[1]

# OpenBLAS' kernels for AVX-512. Where it chooses these, it is also measured with those for AVX2 ("Haswell").
AVX512_CORES = ("SkylakeX", "Cooperlake", "SapphireRapids")
# Prefixes of environment variables that limit the cores of a library or choose its kernels.
SETTINGS = ("OPENBLAS_", "OMP_", "MKL_", "TINYSRGAN_")


class Contestant(NamedTuple):
    """A library to measure: its name, its file in ``peers``, its mode there, and the core forced on OpenBLAS."""

    name: str
    peer: str
    mode: str = ""
    core: str | None = None


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns 0 when done, 2 after a mistake of the user, 1 if a measurement failed."""
    args = parser().parse_args(arguments)
    sizes = {name: value for name in ("blocks", "filters") if (value := getattr(args, name)) is not None}
    rows = GPU_CASES if args.device == "cuda" else CASES
    cases = [replace(case, **sizes) for case in rows if any(text in case.name for text in args.rows.split("|"))]
    if find_spec("matplotlib") is None:
        print("benchmarks: matplotlib is not installed: pip install -e '.[train]' brings it.", file=sys.stderr)
        return 2
    if not cases:
        names = "; ".join(case.name for case in rows)
        print(f"benchmarks: no row has '{args.rows}' in its name. The rows: {names}.", file=sys.stderr)
        return 2
    rounds, seconds = (1, 0.5) if args.quick else (args.rounds, args.seconds)
    try:
        results = measure(cases, rounds, seconds, args.device, args.quick)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"benchmarks: {' '.join(error.cmd[2:])} failed:\n{error.stderr}", file=sys.stderr)
        return 1
    machine = results["machine"]
    label = re.sub(r"\W+", "-", f"{machine['gpu'] or machine['cpu']} {machine['cores']} cores").lower()
    name = f"{machine['date']}-{label}{'-quick' if args.quick else ''}"
    print("\n" + report.write(results, args.out, name))
    print(f"Written to {args.out}: {name}.md, .json and .png")
    return 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n\n")[1])
    add = result.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what computes, with rows of its own (cpu)")
    add("--quick", action="store_true", help="a first impression in two minutes: one round, half a second each")
    add("--rounds", type=whole(1), default=3, metavar="N", help="processes for each library and row (3)")
    add("--seconds", type=real(0), default=2, metavar="X", help="how long each measures, at least two runs (2)")
    add("--rows", default="", metavar="TEXT", help="only the rows with this in their name; A|B: with one of these")
    add("--blocks", type=whole(1), metavar="N", help="residual blocks in all rows, instead of each row's own")
    add("--filters", type=whole(1), metavar="N", help="channels in all rows")
    add("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR", help="(benchmarks/results)")
    return result


def measure(cases: list[Case], rounds: int, seconds: float, device: str, quick: bool) -> dict[str, Any]:
    """Measure all rows. Returns a description of the machine, and the results of every library for each row.

    quick: leave out PyTorch compiled, which takes minutes to compile a row. Raises UserError where the device doesn't
    work.
    """
    where = choose_device(device)[1]
    gpu, _, cupy = where.removeprefix("on the GPU ").partition(" with ") if device == "cuda" else ("", "", "")
    blas: dict[str, dict[str, Any]] = {report.OURS: {} if gpu else child("machine")}
    entrants = [Contestant(report.OURS, "tinysrgan_peer")]
    if blas[report.OURS].get("core") in AVX512_CORES:
        blas[report.AVX2] = child("machine", core="Haswell")
        entrants.append(Contestant(report.AVX2, "tinysrgan_peer", core="Haswell"))
    others = gpu_peers(quick) if gpu else peers()
    names = sorted({entrant.name for entrant in others}, reverse=True)
    alone = "No PyTorch that sees a GPU is here" if gpu else "Neither PyTorch nor Keras is here"
    print(f"Compared with {' and '.join(names)}." if names else f"{alone}: tinysrgan alone.")
    for entrant, found in zip(entrants, blas.values(), strict=True):
        print(f"{entrant.name}: {report.describe(found) if found else where}", flush=True)

    raw = []
    for case in cases:
        raw.append(measure_case(case, [*entrants, *others], rounds, seconds))
        seconds_of = {name: median(t for one in found for t in one["seconds"]) for name, found in raw[-1].items()}
        print(f"{case.name}: {', '.join(f'{name} {1000 * s:.1f} ms' for name, s in seconds_of.items())}", flush=True)
    # The operations are counted last: counting takes memory, which would count as the peak of the processes above.
    return {
        "machine": {
            "cpu": cpu(),
            "gpu": gpu,
            "cores": cores(),
            "system": f"{platform.system()} {platform.machine()}",
            "date": date.today().isoformat(),
            "versions": sorted({one["name"] for found in raw for results in found.values() for one in results})
            + [cupy] * bool(gpu),
            "python": platform.python_version(),
            "blas": blas,
        },
        "rounds": rounds,
        "rows": [report.row(case, found) for case, found in zip(cases, raw, strict=True)],
    }


def peers() -> list[Contestant]:
    """The other libraries that are installed."""
    result = []
    if find_spec("torch"):
        result += [Contestant("PyTorch", "torch_peer", layout) for layout in ("channels last", "channels first")]
    if find_spec("keras") and find_spec("tensorflow"):
        result.append(Contestant("Keras", "keras_peer"))
    return result


def gpu_peers(quick: bool) -> list[Contestant]:
    """PyTorch's ways to run on a GPU, if it is installed and sees one."""
    sees = "import torch; raise SystemExit(not torch.cuda.is_available())"
    if not find_spec("torch") or subprocess.run([sys.executable, "-c", sees]).returncode:
        return []
    modes = {name: mode for name, mode in report.GPU_PEERS.items() if not (quick and mode == "torch.compile")}
    return [Contestant(name, "torch_peer", mode) for name, mode in modes.items()]


def measure_case(
    case: Case, contestants: list[Contestant], rounds: int, seconds: float
) -> dict[str, list[dict[str, Any]]]:
    """Measure the contestants in turns. After the first round, only the fastest of those with the same name goes on.

    A peer that fails, for example for lack of memory, has no result. Raises CalledProcessError if tinysrgan fails.
    """
    found = {}
    for one in contestants:
        try:
            found[one] = [child("worker", one, case, seconds)]
        except subprocess.CalledProcessError as error:
            if one.peer == "tinysrgan_peer":
                raise
            print(f"{case.name}: {one.name} {one.mode} failed: {(error.stderr.splitlines() or ['?'])[-1]}", flush=True)
    best: dict[str, Contestant] = {}
    for one in found:
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
    """The output of benchmarks.machine, or of benchmarks.worker for a contestant and a case, in a fresh process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    command = [sys.executable, "-m", f"benchmarks.{module}"]
    if one and case:
        core = one.core
        command += [one.peer, one.mode, str(seconds), json.dumps(asdict(case))]
    if core:
        environment["OPENBLAS_CORETYPE"] = core
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
