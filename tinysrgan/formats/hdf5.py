"""Reading HDF5 files with care: they may come from anywhere, so they are not trusted."""

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

LARGEST_NAMES = 300_000_000  # bytes that a list of names may take at worst; of 64 blocks, some 200 MB

DEEPEST = 20  # groups within groups; Keras has some six


@contextmanager
def reading(path: Path, error: type[UserError]) -> Iterator[h5py.File]:
    """Open an HDF5 file; whatever is wrong with it, here or in the ``with`` block, is raised as one ``error``."""
    try:
        if not path.is_dir() and not path.is_file():
            raise error(f"There is no file {path}.")
        if path.is_dir():
            raise error(not_hdf5(path))
        with path.open("rb"):
            pass  # what the system forbids, it says more clearly than HDF5
        if not h5py.is_hdf5(path):
            raise error(not_hdf5(path))
        if any(size is None for size in heaps(path)):
            raise error(f"{path} is damaged: a heap of its texts has no end.")
    except OSError as failure:
        raise error(f"{path} can't be read: {failure.strerror}.") from failure
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as failure:
        reason = str(failure).split("\n")[0][:200]
        raise error(f"{path} is damaged or cut short ({reason}).") from failure


def objects(file: h5py.File) -> dict[str, Any]:
    """All groups and datasets of the file by path. Soft and external links are not followed, nor anything twice.

    Raises ValueError for groups nested deeper than ``DEEPEST``: HDF5 would take minutes to find its way.
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
    """One text or whole number, None where it is absent. Raises ValueError for anything else."""
    if name not in item.attrs:
        return None
    about = item.attrs.get_id(name)
    if about.shape != () or not (h5py.check_string_dtype(about.dtype) or about.dtype.kind in "iu"):
        raise ValueError(f"attribute {name} is neither a text nor a number")
    value = item.attrs[name]
    return value if isinstance(value, str) else value.item()


def texts(item: h5py.HLObject, name: str, largest: int) -> list[str]:
    """A list of short texts, as Keras stores names; empty where it is absent. Raises ValueError for anything else.

    ``largest`` is ``largest_heap`` of the file: so much, at worst, is each text that has no fixed length.
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
    """The sizes in bytes of the file's global heaps, where its texts of variable length lie; None for one without end.

    HDF5 (1.14) walks a heap from object to object, for ever where one has no size, and doesn't tell how long a text
    is. A heap begins with GCOL, its version and its size; then come objects: a number, eight bytes on their size, and
    what they hold, filled up to a multiple of 8. The last, number 0, is what is free, and its size counts all of it.
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
    """The size of the largest heap, in bytes: so long may each text be.

    Thousands of names can be one and the same long text in the file, and only in memory each a copy.
    """
    return max(filter(None, heaps(Path(file.filename))), default=0)


def misfit(dataset: h5py.Dataset, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> str | None:
    """Say why a dataset can't be read as an array of this shape and one of these dtypes; None if it can.

    One that was compressed, or lies in another file, is refused: there is no telling what reading it would bring in.
    """
    if dataset.shape != shape:
        return f"has shape {dataset.shape}, not {shape}"
    if dataset.dtype not in dtypes:
        return f"holds {dataset.dtype}, not {' or '.join(dtypes)}"
    if dataset.id.get_offset() is None:
        return "is not stored as one plain block of the file"
    return None
