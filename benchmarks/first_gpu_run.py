"""The first minutes on a machine with a GPU: ``python -m benchmarks.first_gpu_run FOLDER``, 10 to 20 minutes.

Is the GPU found, are the kernels right, are runs repeatable, how fast is it? From the simplest question to the longest.
Each step's output goes to a file in FOLDER; summary.txt says how each step ended. A step that fails or takes too long
doesn't stop the others. For Linux.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CUDA = "/usr/local/cuda/bin"  # where CUDA's installer puts compute-sanitizer and nsys
# The smallest training; and one whose convolutions use tensor cores.
TINY = "--max-images 6 --hr-size 20 --blocks 1 --filters 4 --batch-size 2 --pretrain-steps 1 --steps 1"
SMALL = TINY.replace("--filters 4", "--filters 32")
SANITIZERS = ("memcheck", "racecheck", "synccheck")  # compute-sanitizer's tools


class Step(NamedTuple):
    """Commands, one after the other, and how the last of them should end. limit: seconds for all of them."""

    name: str
    limit: int
    commands: list[str]
    code: int = 0
    says: str = ""


def steps(folder: Path, short: bool) -> list[Step]:
    """All steps, in order. short: each takes seconds, even where the CPU stands in for a GPU."""
    python, out = shlex.quote(sys.executable), shlex.quote(str(folder))
    pytest = f"{python} -m pytest --gpu -q -rs"
    kernels = "tests/cuda/test_cuda_layers.py -k adam" if short else "tests/cuda --ignore tests/cuda/test_cuda_step.py"
    whole_steps = "tests/cuda/test_cuda_step.py" + " -k 'upscaling and shuffle'" * short
    new_run = "-m tinysrgan.train data/qr --seed 1 --device"
    resume = f"{python} -m tinysrgan.train --resume {out}/moved"
    size = TINY.replace("--steps 1", "--steps 0") if short else "--pretrain-steps 100 --steps 20"
    weights = f"{out}/first/generator.h5" if short else "weights/qr_x4_srresnet.h5"
    judge = f"{python} -m tinysrgan.evaluate data/qr --exact --max-images {2 if short else 40} --weights {weights}"
    rows = "'32x32, qr' --blocks 1 --filters 4" if short else "'paper, batch 16|qr, batch 8|64x64, batch 16'"
    probe = "from tinysrgan.ops.device import choose_device; print(choose_device('cuda')[1])"
    checked = f"--error-exitcode 1 {python} {new_run} cuda {SMALL} --out {out}"
    first, second, traced = (f"{python} {new_run} cuda {size} --out {out}/{i}" for i in ("first", "second", "traced"))
    same = f"cmp {out}/first/checkpoint.h5 {out}/second/checkpoint.h5"
    launches = [f"{python} {new_run} cuda {size} --no-cuda-graph --out {out}/launches"]
    launches += [f"cmp {out}/first/generator.h5 {out}/launches/generator.h5"]
    moved = [f"{python} {new_run} cpu {TINY} --out {out}/moved", f"{resume} --device cuda --steps 2"]
    full = f"env CUPY_GPU_MEMORY_LIMIT=100000 {python} {new_run} cuda {TINY} --out {out}/full"
    return [
        Step("driver", 30, ["nvidia-smi"]),
        Step("doctor", 120, [f"{python} -m tinysrgan.doctor"]),
        Step("one kernel against CuPy", 120, [f'{python} -c "{probe}"']),
        Step("kernels", 400, [f"{pytest} {kernels}"]),
        Step("training steps", 300, [f"{pytest} {whole_steps}"]),
        *(Step(tool, 200, [f"compute-sanitizer --tool {tool} {checked}/{tool}"]) for tool in SANITIZERS),
        Step("same seed, same bits", 300, [first, second, same]),
        Step("graph or not, same bits", 200, launches),
        Step("CPU, GPU, CPU in one run", 200, [*moved, f"{resume} --device cpu --steps 3"]),
        Step("evaluate on both", 200, [f"{judge} --device {device}" for device in ("cpu", "cuda")]),
        Step("benchmark", 600, [f"{python} -m benchmarks --device cuda --quick --rows {rows} --out {out}/speed"]),
        Step("profile of Python", 200, [f"{python} -m cProfile -s tottime {new_run} cuda {size} --out {out}/profile"]),
        Step("profile of the GPU", 200, [f"nsys profile --stats=true -o {out}/nsys {traced}"]),
        Step("out of memory", 120, [full], code=2, says="too little memory"),
    ]


def perform(step: Step, file: Path) -> str:
    """Run a step's commands, with their output in ``file``. Returns "ok", or in words what went wrong."""
    end = time.monotonic() + step.limit
    codes = [*(0 for _ in step.commands[1:]), step.code]
    with file.open("w") as output:
        for command, expected in zip(step.commands, codes, strict=True):
            arguments = shlex.split(command)
            if shutil.which(arguments[0]) is None:
                return f"skipped: {arguments[0]} is not installed"
            print(f"$ {command}", file=output, flush=True)
            process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(max(0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                return f"FAILED: stopped after {step.limit} seconds"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it started
                    process.wait()
            if code != expected:
                return f"FAILED: exit code {code}" + f" instead of {expected}" * bool(expected)
    return "ok" if step.says in file.read_text(errors="replace") else f"FAILED: it doesn't say '{step.says}'"


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 if all went well, 1 if a step failed, 2 if the folder can't be used."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_gpu_run",
        description="Try everything that a GPU is for, once, and keep it all.",
    )
    parser.add_argument("folder", type=Path, help="a new folder for what each step prints and makes")
    parser.add_argument("--short", action="store_true", help="each step in seconds, to try this program itself")
    args = parser.parse_args(arguments)
    folder = args.folder.resolve()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        print(f"first_gpu_run: {folder}: {error.strerror}. Give a new folder.", file=sys.stderr)
        return 2
    os.environ["PATH"] += os.pathsep + CUDA
    failed = False
    for number, step in enumerate(steps(folder, args.short), 1):
        file = folder / f"{number:02d}-{step.name.replace(', ', '-').replace(' ', '-')}.txt"
        begin = time.monotonic()
        outcome = perform(step, file)
        failed |= outcome.startswith("FAILED")
        line = f"{step.name:26s}{time.monotonic() - begin:5.0f} s  {outcome}"
        print(line, flush=True)
        with (folder / "summary.txt").open("a") as summary:
            print(line, file=summary)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
