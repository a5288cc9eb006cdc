"""Open a Keras model's file: HDF5 (.h5), or Keras 3's archive (.keras).

config.json         the graph, which HDF5 has in the attribute model_config
model.weights.h5    the arrays
metadata.json       Keras' version; not read
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py

from tinysrgan.formats.hdf5 import attribute, largest_heap, reading
from tinysrgan.formats.keras.weights import WeightsError

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LARGEST_CONFIG = 4_000_000  # bytes; a net of 16 blocks has about 100,000
LARGEST_WEIGHTS = 2_000_000_000  # bytes; 512 filters and 64 blocks take 1.3 GB


def is_archive(path: Path) -> bool:
    """Whether a file is a .keras archive, as far as it can be read."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {CONFIG, WEIGHTS} <= {*archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return False


@contextmanager
def opened(path: Path) -> Iterator[tuple[h5py.File, str | None]]:
    """The HDF5 file with the arrays, and the JSON of the graph; None for weights alone. Raises WeightsError."""
    if not is_archive(path):
        with reading(path, WeightsError) as file:
            yield file, _graph(file)
        return
    with TemporaryDirectory() as folder:
        content = Path(folder, WEIGHTS)
        try:
            with zipfile.ZipFile(path) as archive:
                sizes = {name: archive.getinfo(name).file_size for name in (CONFIG, WEIGHTS)}
                if sizes[CONFIG] > LARGEST_CONFIG or sizes[WEIGHTS] > LARGEST_WEIGHTS:
                    raise WeightsError(f"{path} is of no use: it unpacks to {sum(sizes.values()):,} bytes.")
                text = archive.read(CONFIG).decode()
                with archive.open(WEIGHTS) as packed, content.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{path} is damaged or cut short ({error}).") from error
        with reading(content, WeightsError, shown=path) as file:
            yield file, text


def _graph(file: h5py.File) -> str | None:
    """The text of the attribute model_config, if there is one that could be a net's. Raises ValueError."""
    if "model_config" in file.attrs and (length := largest_heap(file)) > LARGEST_CONFIG:
        raise ValueError(f"its texts take {length:,} bytes")
    return attribute(file, "model_config")
