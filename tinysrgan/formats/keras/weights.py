"""Read Keras' HDF5 weights: of any Keras since 1.0, weights alone or whole models.

The spellings differ, but a layer always has a group of its own:

    block1_conv1/block1_conv1_W_1:0                         Keras 1, and the published VGG19
    block1_conv1/block1_conv1/kernel:0                      Keras 2
    model_weights/block1_conv1/vgg19/block1_conv1/kernel    a whole model, sometimes with its name on the way
    layers/conv2d/vars/0                                    Keras 3; the attribute "name" of vars says "block1_conv1"

So the group identifies the layer, and the rank distinguishes kernel and bias; the arrays' names aren't needed. Kernels
are (R, S, C, K), as here.
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from tinysrgan.core.errors import UserError
from tinysrgan.formats.hdf5 import attribute, misfit, objects, reading
from tinysrgan.models import VGG19
from tinysrgan.models.vgg19 import LAYERS

FLOATS = ("float32", "float64", "float16")


class WeightsError(UserError):
    """A weights file can't be read, or doesn't fit the net."""


def keras_layers(file: h5py.File) -> dict[str, list[h5py.Dataset]]:
    """Each layer's datasets by the layer's name, sorted by path in natural order: conv2d_2 before conv2d_10."""
    stored = objects(file)
    found: dict[str, list[h5py.Dataset]] = {}
    for path in sorted(stored, key=natural):
        if isinstance(stored[path], h5py.Dataset) and not path.startswith("optimizer"):
            found.setdefault(_layer_of(path, stored), []).append(stored[path])
    return found


def natural(name: str) -> list[int | str]:
    """A key to sort names by, with numbers as numbers: conv2d_2 before conv2d_10."""
    return [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", name)]


def _layer_of(path: str, stored: dict[str, Any]) -> str:
    group = PurePosixPath(path).parent
    if group.name != "vars":
        return group.name
    return attribute(stored[str(group)], "name") or group.parent.name


def load_vgg19(path: Path, cut: str = "block3_conv4") -> VGG19:
    """VGG19 up to the layer ``cut``, frozen, in float32 on the CPU, with the weights of a Keras file.

    Raises WeightsError if the file can't be read, or if layers up to ``cut`` are missing or misshapen; the message
    lists them all and names the last layer that the file can serve.
    """
    net = VGG19(cut)
    convolutions = [name for name in LAYERS if "conv" in name]
    chosen: dict[str, h5py.Dataset] = {}
    problems: dict[str, list[str]] = {}
    with reading(path, WeightsError) as file:
        layers = keras_layers(file)
        if layers.keys().isdisjoint(convolutions):  # the first releases of Keras 3 only number the layers
            unnamed = [datasets for datasets in layers.values() if any(dataset.ndim == 4 for dataset in datasets)]
            layers = dict(zip(convolutions, unnamed, strict=False))
        for name, parameter in net.parameters().items():
            layer, shape = name.split(".")[0], parameter.value.shape
            kind = "kernel" if len(shape) == 4 else "bias"
            fitting = [dataset for dataset in layers.get(layer, []) if dataset.ndim == len(shape)]
            if len(fitting) != 1:
                problems.setdefault(layer, []).append(f"{len(fitting) or 'no'} {kind}")
            elif problem := misfit(fitting[0], shape, FLOATS):
                problems.setdefault(layer, []).append(f"{kind} {problem}")
            else:
                chosen[name] = fitting[0]
        if problems:
            listed = "; ".join(f"{layer}: {', '.join(found)}" for layer, found in problems.items())
            served = list(takewhile(lambda layer: layer not in problems, convolutions))
            advice = f"It serves {served[-1]} and what is before it" if served else "It doesn't look like VGG19's"
            raise WeightsError(f"{path} can't give VGG19 up to {cut}: {listed}. {advice}.")
        with np.errstate(over="ignore"):
            values = {name: dataset[()].astype(np.float32) for name, dataset in chosen.items()}
    if bad := [name for name, value in values.items() if not np.isfinite(value).all()]:
        raise WeightsError(f"{path} is damaged: not all numbers are finite in {', '.join(bad)}.")
    for name, parameter in net.parameters().items():
        parameter.value[...] = values[name]
    return net
