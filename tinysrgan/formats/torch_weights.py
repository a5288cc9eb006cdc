"""Read PyTorch weights of SRGAN-shaped generators, as safetensors: arrays and names alone, which execute nothing.

safetensors sorts tensors, so their order is lost unless the metadata states it (``ORDER``, which
examples/pth_to_safetensors.py writes). Else names are sorted with numbers as numbers: block2 before block10. The layers
must then be a generator's, one by one, so that no other order passes.

    convolution    weight (K, C, R, S), bias (K,)
    batch-norm     weight, bias, running_mean, running_var (C,)
    PReLU          weight (1,) or (C,)
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinysrgan.core.errors import UserError
from tinysrgan.formats.checkpoint import GENERATOR_CONFIG
from tinysrgan.formats.keras.nets import UnknownWiring, compensate, our_layers, padded
from tinysrgan.formats.keras.value_range import Ends, read_range, settle
from tinysrgan.formats.keras.weights import WeightsError, natural
from tinysrgan.layers import BatchNorm
from tinysrgan.models import Generator

ORDER = "order"  # metadata: the tensors' names in forward order, as JSON
EPSILON = 1e-5  # of PyTorch's batch-norm, unless told otherwise
MISSING = "Reading .safetensors needs the package safetensors: install it with `pip install safetensors`."
# PyTorch's names in our order.
TENSORS = {
    "convolution": {"w": "weight", "b": "bias"},
    "batch-norm": {
        "gamma": "weight",
        "beta": "bias",
        "running_mean": "running_mean",
        "running_variance": "running_var",
    },
    "PReLU": {"slope": "weight"},
}


def is_safetensors(path: Path) -> bool:
    """Whether a file is one, as far as it can be read: the length of a JSON text in 8 bytes, then the text."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return re.match(rb'.{6}\0\0\{\s*"', file.read(20), re.DOTALL) is not None
    except OSError:
        return False


def load_torch_generator(path: Path, value_range: str | None = None) -> Generator:
    """The generator in a .safetensors file, on the CPU and in eval mode.

    It has the paper's form: PReLUs, batch-norms or none, pixel shuffle. ``value_range`` is required and as in
    ``read_range``. Warns by UnknownWiring.

    Raises WeightsError if the file can't be read or doesn't fit, UserError without the package safetensors.
    """
    groups = _groups(path)
    kernels = [group["weight"].shape for kind, group in groups if kind == "convolution"]
    norms = sum(kind == "batch-norm" for kind, _ in groups)
    filters = kernels[0][0] if kernels else 0
    doublings = sum(shape[0] == 4 * filters for shape in kernels)
    found: dict[str, Any] = {
        "blocks": (len(kernels) - doublings - 3) // 2,
        "filters": filters,
        "scale": 2 ** min(doublings, 9),
    }
    if any(value not in GENERATOR_CONFIG[name] for name, value in found.items()):
        raise WeightsError(
            f"{path} holds no generator of SRGAN's form: it has {len(kernels)} convolutions, of them {doublings} to 4 "
            f"times the {filters} channels of the first, and {norms} batch-norms."
        )
    ends = settle(Ends(), read_range(value_range) if value_range else Ends(), path)
    generator = Generator(
        **found, norm=norms > 0, output=ends.output or "linear", value_range=f"{ends.inside}:{ends.outside}"
    )
    _fill(generator, groups, path)
    warnings.warn(UnknownWiring(path), stacklevel=2)
    return generator.eval()


def _groups(path: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The layers in forward order: kind and tensors by PyTorch's names."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError(MISSING) from None
    try:
        with safe_open(str(path), framework="numpy") as file:
            names = [name for name in file.keys() if not name.endswith("num_batches_tracked")]  # noqa: SIM118
            order = json.loads((file.metadata() or {}).get(ORDER, "null"))
            if order is None:
                names.sort(key=natural)
            else:
                names = [name for name in order if name in {*names}]
            arrays = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} is damaged or of no use ({str(error)[:200]}).") from error
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, tensor = name.rpartition(".")
        layers.setdefault(layer, {})[tensor] = array
    found = []
    for layer, tensors in layers.items():
        weight = tensors.get("weight", np.zeros(()))
        kind = "convolution" if weight.ndim == 4 else "batch-norm" if "running_var" in tensors else "PReLU"
        if not {*tensors} <= {*TENSORS[kind].values()} or weight.ndim not in (1, 4):
            raise WeightsError(f"{path} is no generator of SRGAN's form: {layer} has {', '.join(sorted(tensors))}.")
        found.append((kind, tensors))
    return found


def _fill(generator: Generator, groups: list[tuple[str, dict[str, np.ndarray]]], path: Path) -> None:
    """Copy the tensors. Raises WeightsError unless the layers are those of a generator, in its order, and fit."""
    ours = our_layers(generator)
    if [kind for kind, _, _ in ours] != [kind for kind, _ in groups]:
        raise WeightsError(
            f"{path} has not SRGAN's layers in forward order, which .safetensors doesn't keep: if its net is an SRGAN, "
            "convert its .pth by examples/pth_to_safetensors.py."
        )
    for (kind, name, layer), (_, tensors) in zip(ours, groups, strict=True):
        for tensor, torch_name in TENSORS[kind].items():
            target = getattr(layer, tensor).value
            value = tensors.get(torch_name)
            if value is None and tensor == "b":
                value = np.zeros(target.shape, np.float32)
            if value is None or not np.isfinite(value).all():
                raise WeightsError(f"{path} is of no use: {name} has no finite {torch_name}.")
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
            if value.ndim == 4 and name in ("head.conv", "tail"):  # smaller kernels are padded
                value = padded(value, len(target))
            if value.shape != target.shape and not (kind == "PReLU" and value.shape == (1,)):
                raise WeightsError(f"{path} doesn't fit: {name} has shape {value.shape}, not {target.shape}.")
            target[...] = value
        if isinstance(layer, BatchNorm):
            compensate(layer, EPSILON)
