"""Writing files so that nothing is ever lost or half written."""

from __future__ import annotations

import glob
import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that at any moment ``path`` is all of the old one or all of the new one.

    The content goes to a temporary file in the same folder first; what a killed process left of such is removed the
    next time. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.????????.tmp"):
        with suppress(OSError):
            leftover.unlink()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # not every system can sync a folder, and the file is whole in any case
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
