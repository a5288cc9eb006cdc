"""Read a generator from a file of any known format: tinysrgan's, Keras' (.h5, .keras), safetensors."""

from __future__ import annotations

from pathlib import Path

from tinysrgan.core.errors import UserError
from tinysrgan.formats.checkpoint import CheckpointError, load_generator
from tinysrgan.formats.hdf5 import reading
from tinysrgan.formats.keras.model_files import is_archive
from tinysrgan.formats.keras.nets import load_keras_generator
from tinysrgan.formats.torch_weights import is_safetensors, load_torch_generator
from tinysrgan.models import Generator


def read_generator(path: Path, value_range: str | None = None) -> Generator:
    """The generator in a file, on the CPU and in eval mode.

    value_range: for files of others that don't state it, as in ``keras.value_range.read_range``. Raises UserError if
    the file is absent, damaged or holds no generator.
    """
    if is_safetensors(path):
        return load_torch_generator(path, value_range)
    if not is_ours(path):
        return load_keras_generator(path, value_range)
    if value_range:
        raise UserError(f"{path} is tinysrgan's own file and states its value range: leave out --value-range.")
    return load_generator(path)


def is_ours(path: Path) -> bool:
    """Whether tinysrgan wrote the file. Raises CheckpointError if it is none of a known format."""
    if is_safetensors(path) or is_archive(path):
        return False
    with reading(path, CheckpointError) as file:
        return "format" in file.attrs
