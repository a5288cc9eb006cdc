"""Write generators as Keras' files: weights as HDF5 (.h5), or a whole model in Keras 3's archive (.keras)."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tinysrgan.core.cli import write
from tinysrgan.core.device import to_device
from tinysrgan.formats.keras.model_files import CONFIG, WEIGHTS
from tinysrgan.formats.keras.nets import KERAS_NAMES, TENSORS, our_layers, shuffled
from tinysrgan.formats.keras.value_range import STATEMENT
from tinysrgan.formats.keras.wiring import KERAS_KINDS, lay_out
from tinysrgan.layers import BatchNorm, Conv2D, Layer, PixelShuffle, PReLU, Sigmoid, Tanh, Upsample
from tinysrgan.models import Generator

KERAS_VERSION = "3.15.1"  # the one that the archives are tested with
OPERATIONS = "keras.src.ops.nn"  # where Keras 3 has its pixel shuffle
SNAKE_CASE = {
    "Conv2D": "conv2d",
    "BatchNormalization": "batch_normalization",
    "PReLU": "p_re_lu",
    "UpSampling2D": "up_sampling2d",
    "DepthToSpace": "depth_to_space",
}  # of the names that Keras gives to layers


def save_keras_generator(path: Path, generator: Generator) -> None:
    """Write a generator as Keras' weights (.h5), for ``load_weights`` of a Keras model of the same form.

    All convolutions have biases, and batch-norm's epsilon is Keras' default. ``load_keras_generator`` restores every
    bit. Raises UserError if the file can't be written; the old file is then intact.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        names = []
        for _, name, layer in our_layers(generator):
            names.append(name.replace(".", "_"))
            arrays = {f"{names[-1]}/{KERAS_NAMES[tensor]}:0": value for tensor, value in _values(generator, layer)}
            group = file.create_group(names[-1])
            group.attrs["weight_names"] = [weight.encode() for weight in arrays]
            for weight, value in arrays.items():
                group[weight] = value
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        file.attrs[STATEMENT] = _statement(generator)
    write(path, image.getbuffer())


def save_keras_archive(path: Path, generator: Generator) -> None:
    """Write a generator as a whole model (.keras), for Keras 3's ``load_model``.

    The model takes and gives the values that the convolutions do. Pixel shuffle is Keras' own ``depth_to_space``.
    ``load_keras_generator`` restores every bit. Raises UserError if the file can't be written; the old file is then
    intact.
    """
    layers = [_layer("InputLayer", "image", [], batch_shape=[None, None, None, 3])]
    counts: Counter[str] = Counter()
    names: dict[Layer, str] = {}
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for layer, inputs in lay_out(generator):
            kind, options = _options(layer)
            base = SNAKE_CASE.get(kind, kind.lower())
            name = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1
            layers.append(_layer(kind, name, [layers[1 + i]["name"] for i in inputs], **options))
            names[layer] = name
        for _, _, layer in our_layers(generator):
            group = file.create_group(f"layers/{names[layer]}/vars")
            group.attrs["name"] = names[layer]
            for i, (_, value) in enumerate(_values(generator, layer)):
                group[str(i)] = value
        file.attrs[STATEMENT] = _statement(generator)
    ends = {"input_layers": ["image", 0, 0], "output_layers": [layers[-1]["name"], 0, 0]}
    model = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "registered_name": "Functional",
        "config": {"name": "generator", "trainable": True, "layers": layers, **ends},
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in (
            ("metadata.json", json.dumps({"keras_version": KERAS_VERSION})),
            (CONFIG, json.dumps(model)),
            (WEIGHTS, weights.getvalue()),
        ):
            file.writestr(zipfile.ZipInfo(name), content)  # without the time: the same net is the same bytes
    write(path, archive.getbuffer())


def _values(generator: Generator, layer: Layer) -> list[tuple[str, np.ndarray]]:
    """A layer's tensors by name, in Keras' order and shapes."""
    found = []
    tensors = next(names for kind, names in TENSORS.values() if kind is type(layer))
    for tensor in tensors:
        value = to_device(getattr(layer, tensor).value, np)
        if shuffled(layer.path, generator):
            value = _to_tensorflow(value)
        found.append((tensor, value.reshape(1, 1, -1) if isinstance(layer, PReLU) else value))
    return found


def _to_tensorflow(value: np.ndarray) -> np.ndarray:
    """Channels (..., 4 C) from the order of ``PixelShuffle`` to that of ``tf.nn.depth_to_space``, cell first."""
    return value.reshape(*value.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(value.shape)


def _statement(generator: Generator) -> str:
    return json.dumps({key: generator.config[key] for key in ("value_range", "output")})


def _options(layer: Layer) -> tuple[str, dict[str, Any]]:
    """The class of Keras' layer, and the options that differ from its defaults."""
    match layer:
        case Conv2D():
            size, _, _, outputs = layer.w.value.shape
            return "Conv2D", {"filters": outputs, "kernel_size": [size, size], "padding": "same"}
        case BatchNorm():
            return "BatchNormalization", {"momentum": layer.momentum, "epsilon": layer.epsilon}
        case PReLU():
            return "PReLU", {"shared_axes": [1, 2]}
        case PixelShuffle():
            return "DepthToSpace", {"block_size": 2}
        case Upsample():
            return "UpSampling2D", {"size": [2, 2], "interpolation": "nearest"}
        case Tanh() | Sigmoid():
            return "Activation", {"activation": KERAS_KINDS[type(layer)]}
    return "Add", {}


def _layer(kind: str, name: str, inputs: list[str], **options: Any) -> dict[str, Any]:
    """A layer of the graph, which takes the outputs of the layers ``inputs``."""
    about = {"shape": [None] * 4, "dtype": "float32"}
    tensors = [
        {"class_name": "__keras_tensor__", "config": about | {"keras_history": [source, 0, 0]}} for source in inputs
    ]
    return {
        "module": OPERATIONS if kind == "DepthToSpace" else "keras.layers",
        "class_name": kind,
        "registered_name": None,
        "name": name,
        "config": {"name": name, **options},
        "inbound_nodes": [{"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": {}}] if inputs else [],
    }
