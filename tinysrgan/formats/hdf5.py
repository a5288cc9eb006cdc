"""Read HDF5 files as untrusted input."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py

from tinysrgan.core.errors import UserError
from tinysrgan.formats.file_kinds import not_hdf5

LARGEST_NAMES = 300_000_000  # bytes of a list of names at worst; about 200 MB for 64 blocks
DEEPEST = 20  # levels of nested groups; Keras uses about six


@contextmanager
def reading(path: Path, error: type[UserError], shown: Path | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file; any fault of it, here or in the ``with`` block, is raised as one ``error``.

    ``shown``: the file that errors name instead.
    """
    try:
        if not path.is_dir() and not path.is_file():
            raise error(f"{path} is not a file." if path.exists() else f"There is no file {path}.")
        if path.is_dir():
            raise error(not_hdf5(path))
        with path.open("rb"):
            pass  # the system's error is clearer than HDF5's
        if not h5py.is_hdf5(path):
            raise error(not_hdf5(path))
        if any(size is None for size in heaps(path)):
            raise error(f"{shown or path} is damaged: a heap of its texts has no end.")
    except OSError as failure:
        raise error(f"{path} can't be read: {failure.strerror}.") from failure
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as failure:
        reason = str(failure).split("\n")[0][:200]
        raise error(f"{shown or path} is damaged or cut short ({reason}).") from failure


def objects(file: h5py.File) -> dict[str, Any]:
    """All groups and datasets of the file by path, each once. Soft and external links are not followed.

    Raises ValueError for groups nested deeper than ``DEEPEST``, which HDF5 would take minutes to walk.
    """
    found: dict[str, Any] = {}
    seen = {h5py.h5o.get_info(file.id).addr}

    def walk(group: h5py.Group, path: str, depth: int) -> None:
        if depth > DEEPEST:
            raise ValueError(f"its groups are nested more than {DEEPEST} deep")
        for name in group:
            item = group.get(name) if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
            if item is None or (address := h5py.h5o.get_info(item.id).addr) in seen:
                continue
            seen.add(address)
            found[path + name] = item
            if isinstance(item, h5py.Group):
                walk(item, f"{path}{name}/", depth + 1)

    walk(file, "", 1)
    return found


def attribute(item: h5py.HLObject, name: str) -> Any:
    """A text or an integer; None if it is absent. Raises ValueError for anything else."""
    if name not in item.attrs:
        return None
    about = item.attrs.get_id(name)
    if about.shape != () or not (h5py.check_string_dtype(about.dtype) or about.dtype.kind in "iu"):
        raise ValueError(f"attribute {name} is neither a text nor a number")
    value = item.attrs[name]
    return value if isinstance(value, str) else value.item()


def texts(item: h5py.HLObject, name: str, largest: int) -> list[str]:
    """A list of short texts, as Keras stores names; empty if it is absent. Raises ValueError for anything else.

    ``largest``, the file's ``largest_heap``, bounds the size of each text of variable length.
    """
    if name not in item.attrs:
        return []
    about = item.attrs.get_id(name)
    if about.shape == (0,):
        return []
    info = h5py.check_string_dtype(about.dtype)
    if info is None or len(about.shape) != 1 or about.shape[0] * (info.length or largest) > LARGEST_NAMES:
        raise ValueError(f"attribute {name} is not a list of names")
    return [text if isinstance(text, str) else text.decode() for text in item.attrs[name].tolist()]


def heaps(path: Path) -> Iterator[int | None]:
    """The sizes in bytes of the file's global heaps, which hold texts of variable length; None for an endless heap.

    HDF5 (1.14) walks a heap from object to object and never ends at an object of size 0. A heap begins with GCOL, its
    version and its size. Its objects follow: a number, a size of eight bytes, and the content, padded to a multiple of
    8. The last object, number 0, is the free space, and its size includes its header.
    """
    with open(path, "rb") as raw, mmap(raw.fileno(), 0, access=ACCESS_READ) as content:
        for heap in re.finditer(rb"GCOL\x01\0\0\0", content):
            (size,) = struct.unpack_from("<Q", content[heap.end() : heap.end() + 8].ljust(8, b"\0"))
            at, end = heap.start() + 16, heap.start() + size
            while at + 16 <= end:
                number, length = struct.unpack("<H6xQ", content[at : at + 16].ljust(16, b"\0"))
                step = 16 + -(-length // 8) * 8 if number else length
                if step < 16 or at + step > end:
                    break
                at += step
            yield None if at + 16 <= end else size


def largest_heap(file: h5py.File) -> int:
    """The size of the largest heap, in bytes: the limit for a text.

    Thousands of names can share one long text in the file, and each becomes a copy in memory.
    """
    return max(filter(None, heaps(Path(file.filename))), default=0)


def misfit(dataset: h5py.Dataset, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> str | None:
    """Say why a dataset can't be read as an array of this shape and one of these dtypes; None if it can.

    Compressed or external datasets are refused: their size in memory is unbounded.
    """
    if dataset.shape != shape:
        return f"has shape {dataset.shape}, not {shape}"
    if dataset.dtype not in dtypes:
        return f"holds {dataset.dtype}, not {' or '.join(dtypes)}"
    if dataset.id.get_offset() is None:
        return "is not stored as one plain block of the file"
    return None
