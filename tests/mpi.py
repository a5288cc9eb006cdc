"""Runs Python in real processes of mpiexec; tests skip with a reason where there is none."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The one beside this Python first: mpi4py and mpiexec must be of one MPI.
MPIEXEC = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason='needs mpi4py and mpiexec: pip install -e ".[mpi]"',
)


def start(ranks, *arguments, cwd=ROOT):
    """``python ARGUMENTS`` in so many processes, of one thread each, that this process can wait for or stop."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TINYSRGAN_THREADS": "1"}
    return subprocess.Popen(
        [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(ranks, *arguments, cwd=ROOT):
    """The same to its end: (exit code, standard output, standard error)."""
    process = start(ranks, *arguments, cwd=cwd)
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, output, errors
