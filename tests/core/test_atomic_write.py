"""Whole files and claimed folders, while other processes write too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinysrgan.core.atomic_write import claimed, remove_leftovers, write_whole
from tinysrgan.core.errors import UserError

ROOT = Path(__file__).parents[2]

# A process that writes the given file and waits before each fsync.
STANDS_STILL = """
import os, sys, time
from pathlib import Path
from tinysrgan.core import atomic_write

def wait(*_):
    print("here", flush=True)
    sys.stdin.readline()

fsync, os.fsync = os.fsync, wait
atomic_write.write_whole(Path(sys.argv[1]), b"the other's")
"""


@pytest.fixture
def writer(tmp_path):
    """Start another process that waits while it writes file.bin."""
    line = [sys.executable, "-c", STANDS_STILL, str(tmp_path / "file.bin")]
    process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    yield process
    process.kill()
    process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_live_process_keeps_its_temporary_file(tmp_path, writer):
    (temporary,) = names(tmp_path)
    remove_leftovers(tmp_path)
    write_whole(tmp_path / "file.bin", b"ours")
    assert names(tmp_path) == [temporary, "file.bin"]
    writer.stdin.write("\n\n")  # one line for the file's fsync, one for the folder's
    writer.communicate()
    assert writer.returncode == 0
    assert names(tmp_path) == ["file.bin"] and (tmp_path / "file.bin").read_bytes() == b"the other's"


@pytest.mark.parametrize("clean", [remove_leftovers, lambda folder: write_whole(folder / "file.bin", b"ours")])
def test_what_a_killed_process_left_goes(tmp_path, writer, clean):
    writer.kill()
    writer.wait()
    assert len(names(tmp_path)) == 1
    clean(tmp_path)
    assert [name for name in names(tmp_path) if name.endswith(".tmp")] == []


def test_a_file_by_name_takes_only_its_own(tmp_path):
    for name in (".a[1].png.01234567.tmp", ".a1.png.01234567.tmp", ".a[1].png.old.tmp", "a[1].png.01234567.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "a[1].png")
    assert names(tmp_path) == [".a1.png.01234567.tmp", ".a[1].png.old.tmp", "a[1].png.01234567.tmp"]


@pytest.mark.skipif(os.name == "nt", reason="no flock")
def test_without_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    (tmp_path / ".file.bin.01234567.tmp").touch()
    with claimed(tmp_path / "run") as folder:
        write_whole(folder / "file.bin", b"ours")
    write_whole(tmp_path / "file.bin", b"ours")
    assert names(tmp_path) == [".file.bin.01234567.tmp", "file.bin", "run"]  # kept: without locks, its owner is unknown


# ---------------------------------------------------------------- folders


def test_numbers_that_are_taken_are_passed_over(tmp_path):
    (tmp_path / "runs" / "1").mkdir(parents=True)
    with claimed(tmp_path / "runs" / "1", numbered=True) as two, claimed(two, numbered=True) as three:
        assert (two.name, three.name) == ("2", "3")
        (two / "log.csv").touch()
    assert names(tmp_path / "runs") == ["1", "2"]


def test_nothing_empty_stays(tmp_path):
    for error in (None, ValueError, KeyboardInterrupt):
        try:
            with claimed(tmp_path / "a" / "b", numbered=False):
                assert (tmp_path / "a" / "b").is_dir()
                if error:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert names(tmp_path) == []
    with pytest.raises(OSError), claimed(tmp_path / "a" / ("x" * 300)):
        pass
    assert names(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with claimed(tmp_path / "mine"):
        pass
    assert names(tmp_path) == ["mine"]


@pytest.mark.skipif(os.name == "nt", reason="no locks on folders")
def test_a_folder_is_held_by_one(tmp_path):
    with claimed(tmp_path / "run"):
        with pytest.raises(UserError, match="Another run is writing to "), claimed(tmp_path / "run"):
            pass
        assert (tmp_path / "run").is_dir()
    with claimed(tmp_path / "run"):
        pass
