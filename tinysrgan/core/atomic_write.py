"""Atomic file writes and locked folders: no file is lost or half written, even if processes overlap or die."""

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
except ImportError:  # Windows, which cannot remove an open file
    fcntl = None  # type: ignore[assignment]


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically: at any moment ``path`` is the whole old file or the whole new one.

    The content is first written to a temporary file in the same folder. Temporary files of killed processes are removed
    at the next call. Raises OSError.
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
                file.close()  # Windows cannot rename an open file; elsewhere it stays locked until renamed
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some systems cannot sync a folder; the file is complete anyway
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of killed processes from a folder: those of the file ``name``, or of all files.

    A running process holds a lock on its temporary file, visible across containers and, if the file system has locks,
    across machines. On a file system without locks nothing is removed.
    """
    for path in folder.glob(f".{glob.escape(name) if name else '*'}.????????.tmp"):
        with suppress(OSError):
            if fcntl is None:
                path.unlink()
                continue
            with path.open("r+b") as file:  # some systems only lock files that are open for writing
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
        file.close()  # another process removed it before it was locked


@contextmanager
def claimed(folder: Path, numbered: bool = False) -> Iterator[Path]:
    """Create a folder if it is missing and lock it for the ``with`` block; yields its path.

    numbered: the name is a number; if the folder exists, the next free number is used. Folders created here that
    are empty at the end are removed. Raises UserError if another process has locked the folder, OSError if it can't
    be created.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = None
    try:
        while True:
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:  # possibly created just now by another process
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
    """Lock a folder until the returned descriptor is closed. Returns None where folders can't be locked.

    Raises BlockingIOError if another process holds the lock.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # the folder is writable but not readable
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # such as a network drive
        pass
    return descriptor
