"""Reading HDF5 files with care: they may come from anywhere, so they are not trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from tinysrgan.errors import UserError


@contextmanager
def reading(path: Path, error: type[UserError]) -> Iterator[h5py.File]:
    """Open an HDF5 file; whatever is wrong with it, here or in the ``with`` block, is raised as one ``error``."""
    try:
        if path.is_dir():
            raise error(f"{path} is a folder; give an HDF5 file in it.")
        if not path.is_file():
            raise error(f"There is no file {path}.")
        with path.open("rb"):
            pass  # what the system forbids, it says more clearly than HDF5
        if not h5py.is_hdf5(path):
            raise error(f"{path} is not an HDF5 file.")
    except OSError as failure:
        raise error(f"{path} can't be read: {failure.strerror}.") from failure
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as failure:
        reason = str(failure).split("\n")[0]
        raise error(f"{path} is damaged or cut short ({reason}).") from failure


def objects(file: h5py.File) -> dict[str, Any]:
    """All groups and datasets of the file by path. Soft and external links are not followed, nor anything twice."""
    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.update({name: item}))
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
