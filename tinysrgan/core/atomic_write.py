"""Writing files so that nothing is ever lost or half written, by however many processes."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tinysrgan.core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, which doesn't let anybody remove an open file
    fcntl = None  # type: ignore[assignment]


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that at any moment ``path`` is all of the old one or all of the new one.

    The content goes to a temporary file in the same folder first; what a killed process left of such is removed the
    next time. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    remove_leftovers(target.parent, target.name)
    temporary, file = _temporary(target)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows doesn't rename an open file; elsewhere its lock lasts until it has its name
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # not every system can sync a folder, and the file is whole in any case
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of killed processes from a folder: those of the file ``name``, or of all files.

    A process that lives holds a lock on its temporary file, which also shows across containers and, where the file
    system has locks, across machines. Where it has none, nothing is removed.
    """
    for path in folder.glob(f".{glob.escape(name) if name else '*'}.????????.tmp"):
        with suppress(OSError):
            if fcntl is None:
                path.unlink()
                continue
            with path.open("r+b") as file:  # some systems lock only what is open for writing
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _temporary(target: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file beside ``target``, open and locked."""
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        file = path.open("xb")
        with suppress(OSError):  # a file system without locks
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return path, file
        file.close()  # another process took it for a leftover before it was locked


@contextmanager
def claimed(folder: Path, numbered: bool = False) -> Iterator[Path]:
    """Make a folder if need be and hold it for the ``with`` block against other processes; yields its path.

    numbered: the name is a number, and the next one that is free is taken where the folder exists. A folder that was
    made here and is still empty at the end is removed, and so are those above it. Raises UserError where another
    process holds the folder, OSError where it can't be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = None
    try:
        while True:
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:  # be it since this very moment
                made = [path for path in made if path != folder]
                if not numbered:
                    break
                folder = folder.with_name(str(int(folder.name) + 1))
                made.insert(0, folder)
        try:
            lock = _hold(folder)
        except BlockingIOError:
            made = []
            raise UserError(f"Another run is writing to {folder}: wait for its end, or give another --out.") from None
        yield folder
    finally:
        for path in made:
            with suppress(OSError):  # it isn't empty
                path.rmdir()
        if lock is not None:
            os.close(lock)


def _hold(folder: Path) -> int | None:
    """Lock a folder; the lock ends with the returned descriptor, or the process. None where folders have no locks.

    Raises BlockingIOError where another process holds it.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder that may be written but not listed
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a network drive, for one
        pass
    return descriptor
