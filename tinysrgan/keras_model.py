"""What Keras' HDF5 says of a model: its layers' arrays in forward order and, in a whole model, how they are set up.

    layer_names, weight_names                  attributes of Keras 1 to 3 (.h5): the order, layer by layer
    model_weights, model_config                a whole model: the same in a group, and the set-up as JSON
    layers/conv2d_7/vars/0                     Keras 3 (.weights.h5): numbered among layers of one class

The last has no order between the classes. So layers are sorted by kind, and a net that is known by its kind of layers
is put together again from the order within each. The names don't count, and nothing in the file is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import h5py

from tinysrgan.hdf5 import attribute, largest_heap, objects, texts
from tinysrgan.keras_h5 import keras_layers

# The ranks of a layer's arrays tell what it is.
KINDS = {
    (4, 1): "convolution",
    (4,): "convolution",
    (2, 1): "dense layer",
    (2,): "dense layer",
    (1, 1, 1, 1): "batch-norm",  # gamma, beta, moving mean, moving variance
    (3,): "PReLU",
}
OTHER = "other layer"


class Weights(NamedTuple):
    """A layer's arrays, in Keras' order, under the layer's name in the file."""

    name: str
    arrays: list[h5py.Dataset]

    def __str__(self) -> str:
        return f"'{self.name}' {', '.join(str(array.shape) for array in self.arrays)}"


def layers_by_kind(file: h5py.File) -> dict[str, list[Weights]]:
    """All layers that have weights, by kind, each kind in forward order. Raises ValueError where names lead nowhere."""
    found: dict[str, list[Weights]] = {}
    for weights in _named_layers(file) or _numbered_layers(file):
        ranks = tuple(array.ndim for array in weights.arrays)
        found.setdefault(KINDS.get(ranks, OTHER), []).append(weights)
    return found


def _named_layers(file: h5py.File) -> list[Weights]:
    """The layers in the order that the attributes give; none where there are no such attributes."""
    stored, heap = objects(file), largest_heap(file)
    root, group = ("model_weights/", stored["model_weights"]) if "model_weights" in stored else ("", file)
    layers: dict[PurePosixPath, Weights] = {}
    for layer in texts(group, "layer_names", heap):
        if not isinstance(stored.get(root + layer), h5py.Group):
            raise ValueError(f"it names a layer '{layer}' and doesn't hold it")
        for weight in texts(stored[root + layer], "weight_names", heap):
            path = PurePosixPath(root + layer, weight)  # of a model within the model, parent is the inner layer
            array = stored.get(str(path))
            if not isinstance(array, h5py.Dataset):
                raise ValueError(f"it names an array '{weight}' of layer '{layer}' and doesn't hold it")
            layers.setdefault(path.parent, Weights(path.parent.name, [])).arrays.append(array)
    return list(layers.values())


def _numbered_layers(file: h5py.File) -> list[Weights]:
    """Keras 3's layers, sorted by class and number. Raises ValueError for models within models: they have no order."""
    layers = [Weights(name, arrays) for name, arrays in keras_layers(file).items()]
    if any(array.name.count("/vars/") and array.name.count("/") > 4 for layer in layers for array in layer.arrays):
        raise ValueError("models within a model have no order in a .weights.h5 file; save it with Keras as .h5")
    return layers


class Setup(NamedTuple):
    """A layer's class and options, as Keras' ``get_config`` gives them."""

    kind: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.options.get("name"))


LARGEST_CONFIG = 4_000_000  # characters; a net of 16 blocks takes some 100,000


def setups(file: h5py.File) -> list[Setup]:
    """The layers of a whole model in forward order, models within it laid flat; none for a file of weights alone.

    Raises ValueError where the JSON is none, or not a model's.
    """
    text = attribute(file, "model_config")
    if text is None:
        return []
    if len(text) > LARGEST_CONFIG:
        raise ValueError(f"its model_config has {len(text):,} characters")
    return list(_flat(json.loads(text)))


def _flat(model: Any) -> Iterator[Setup]:
    kind, options = model["class_name"], model["config"]
    if isinstance(options, dict) and "layers" in options:
        for layer in options["layers"]:
            yield from _flat(layer)
    elif isinstance(options, list):  # a Sequential of early Keras
        for layer in options:
            yield from _flat(layer)
    else:
        yield Setup(str(kind), dict(options))
