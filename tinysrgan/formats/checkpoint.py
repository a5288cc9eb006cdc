"""A training run in one HDF5 file: nets, optimizers and progress. Written whole or not at all.

    /                          format "tinysrgan", version 1, state (JSON: any data of the caller's)
    /generator                 config (JSON: the arguments that rebuild the net)
    /generator/body/3/conv1/w  and so on: every tensor by its path, buffers included
    /adam_generator            steps
    /adam_generator/m/body/3/conv1/w, /adam_generator/v/body/3/conv1/w  and so on; Muon's matrices have no v
    /discriminator, /adam_discriminator  likewise

A generator alone is such a file with only its own group. Files are untrusted input: only plain datasets of the file
itself are read, and only after their shapes are known to be the net's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tinysrgan.core.atomic_write import write_whole
from tinysrgan.core.device import Array, array_module, to_device
from tinysrgan.core.errors import UserError
from tinysrgan.formats.hdf5 import attribute, misfit, objects, reading
from tinysrgan.layers import Layer
from tinysrgan.models import Generator
from tinysrgan.models.generator import CHOICES
from tinysrgan.optimizers.adam import Adam

FORMAT, VERSION = "tinysrgan", 1

# Batch-norm's tensors keep their original names, so that all versions of tinysrgan read each other's files.
STORED_NAMES = {"gamma": "scale", "beta": "shift", "running_mean": "mean", "running_variance": "variance"}

# The allowed configs: a hostile file could otherwise ask for a net larger than memory.
GENERATOR_CONFIG: dict[str, Any] = {
    "blocks": range(1, 65),
    "filters": range(1, 513),
    **CHOICES,
    "grey": (False, True),
    "norm": (False, True),
}
# The values of entries that older files lack.
EARLIER = {"value_range": "signed:signed", "grey": False, "norm": True}


class CheckpointError(UserError):
    """A checkpoint can't be written, read, or used for these nets."""


def save(path: Path, nets: Mapping[str, Layer], optimizers: Mapping[str, Adam], state: dict[str, Any]) -> None:
    """Write nets and optimizers under their names, bit for bit, and ``state``: any JSON data.

    ``path`` holds the whole old or the whole new checkpoint at any moment, even after a kill or on a full disk. Raises
    CheckpointError if it can't be written, or if a value isn't finite.
    """
    values = {name: to_device(array, np) for name, array in _arrays(nets, optimizers).items()}
    _check_finite(values, path)
    for net in nets.values():
        if isinstance(net, Generator):
            _check_config(net.config, path)
    image = io.BytesIO()  # in memory first: HDF5 may crash when the disk fills up under it
    with h5py.File(image, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, state=json.dumps(state))
        for name, net in nets.items():
            file.create_group(name).attrs["config"] = json.dumps(getattr(net, "config", None))
        for name, adam in optimizers.items():
            file.create_group(f"adam_{name}").attrs["steps"] = adam.steps
        for name, value in values.items():
            file.create_dataset(name, data=value)
    try:
        write_whole(path, image.getbuffer())
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error.strerror}. What was there before is intact.") from error


def load(path: Path, nets: Mapping[str, Layer], optimizers: Mapping[str, Adam]) -> dict[str, Any]:
    """Load nets and optimizers, in place, from what ``save`` stored under their names; return its ``state``.

    Other names in the file are ignored. Raises CheckpointError, before anything is changed, if the file can't be read
    or doesn't fit; one message lists all missing, unexpected and misshapen tensors.
    """
    arrays = _arrays(nets, optimizers)
    with reading(path, CheckpointError) as file:
        state = _state(file, path)
        values = _read(file, arrays, path)
        generators = [(net, _config(file[name], path)) for name, net in nets.items() if isinstance(net, Generator)]
        steps = {name: int(attribute(file[f"adam_{name}"], "steps")) for name in optimizers}
    _fill(arrays, values)
    for generator, config in generators:
        generator.config["grey"] = config["grey"]  # not told by the shapes
    for name, adam in optimizers.items():
        adam.steps = steps[name]
    return state


def save_generator(path: Path, generator: Generator, info: dict[str, Any]) -> None:
    """Write a generator alone, as ``save`` does, with ``info`` about how it was made."""
    save(path, {"generator": generator}, {}, info)


def load_generator(path: Path) -> Generator:
    """Rebuild the generator of a checkpoint, or of a ``save_generator`` file, on the CPU and in eval mode.

    Raises CheckpointError as ``load`` does.
    """
    with reading(path, CheckpointError) as file:
        _state(file, path)
        group = objects(file).get("generator")
        if group is None:
            raise CheckpointError(f"{path} holds no generator.")
        generator = Generator(**_config(group, path))
        arrays = _arrays({"generator": generator}, {})
        _fill(arrays, _read(file, arrays, path))
    return generator.eval()


def read_state(path: Path) -> dict[str, Any]:
    """The ``state`` given to ``save``, or the ``info`` given to ``save_generator``, without reading any array."""
    with reading(path, CheckpointError) as file:
        return _state(file, path)


# ---------------------------------------------------------------- arrays by their names in the file


def _arrays(nets: Mapping[str, Layer], optimizers: Mapping[str, Adam]) -> dict[str, Array]:
    arrays = {f"{name}.{path}": tensor.value for name, net in nets.items() for path, tensor in net.tensors().items()}
    for name, adam in optimizers.items():
        arrays |= {f"adam_{name}.m.{path}": moment for path, moment in adam.m.items()}
        arrays |= {f"adam_{name}.v.{path}": moment for path, moment in adam.v.items()}
    return {_stored_name(path): array for path, array in arrays.items()}


def _stored_name(path: str) -> str:
    """The name in a file of the tensor at ``path``."""
    *groups, tensor = path.split(".")
    return "/".join([*groups, STORED_NAMES.get(tensor, tensor)])


def _fill(arrays: dict[str, Array], values: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        array[...] = array_module(array).asarray(values[name])


def _read(file: h5py.File, arrays: dict[str, Array], path: Path) -> dict[str, np.ndarray]:
    """Read the values for ``arrays``. Raises CheckpointError unless the file has exactly these tensors and shapes."""
    stored = objects(file)
    groups = {name.split("/")[0] for name in arrays}
    if absent := sorted(groups - stored.keys()):
        raise CheckpointError(f"{path} doesn't hold all that is asked for: it has no {', '.join(absent)}.")
    datasets = {name: item for name, item in stored.items() if isinstance(item, h5py.Dataset)}
    problems = [f"{name} is missing" for name in arrays if name not in datasets]
    problems += [f"{name} is unexpected" for name in datasets if name.split("/")[0] in groups and name not in arrays]
    for name, array in arrays.items():
        if name in datasets and (problem := misfit(datasets[name], array.shape, (array.dtype.name,))):
            problems.append(f"{name} {problem}")
    if problems:
        raise CheckpointError(f"{path} doesn't fit the net: {'; '.join(problems).replace('/', '.')}.")
    values = {name: datasets[name][()] for name in arrays}
    _check_finite(values, path)
    return values


def _check_finite(values: dict[str, np.ndarray], path: Path) -> None:
    bad = [name.replace("/", ".") for name, value in values.items() if not np.isfinite(value).all()]
    if bad:
        raise CheckpointError(
            f"{path}: neither saved nor loaded, since not all numbers are finite in {', '.join(bad)}."
        )


def _config(group: h5py.Group, path: Path) -> dict[str, Any]:
    """The config of a generator's group. Raises CheckpointError if it is invalid."""
    config = json.loads(attribute(group, "config"))
    if isinstance(config, dict):
        config = EARLIER | config
    _check_config(config, path)
    return dict(config)


def _check_config(config: Any, path: Path) -> None:
    if not isinstance(config, dict) or config.keys() != GENERATOR_CONFIG.keys():
        raise CheckpointError(f"{path}: the generator's config must say {', '.join(GENERATOR_CONFIG)} and no more.")
    for name, allowed in GENERATOR_CONFIG.items():
        if type(config[name]) is not type(allowed[0]) or config[name] not in allowed:
            choice = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else " or ".join(map(str, allowed))
            raise CheckpointError(f"{path}: the generator's {name} is {config[name]!r}, but must be {choice}.")


def _state(file: h5py.File, path: Path) -> dict[str, Any]:
    """Check the format and its version; return the state."""
    if attribute(file, "format") != FORMAT:
        raise CheckpointError(f"{path} is an HDF5 file, but not one that tinysrgan wrote.")
    version = attribute(file, "version")
    if version != VERSION:
        raise CheckpointError(f"{path} has format version {version}; this tinysrgan reads {VERSION}. Update tinysrgan.")
    return dict(json.loads(attribute(file, "state")))
