"""The arrays of a Keras model's layers, in forward order, from its HDF5 file.

    layer_names, weight_names      attributes of Keras 1 to 3 (.h5) that give the order, layer by layer
    model_weights                  a whole model: the same in a group
    layers/conv2d_7/vars/0         Keras 3 (.weights.h5, .keras): layers are numbered among those of their class, and
                                   the attribute "name" of vars has the layer's name in the model

The last has no order between classes. So layers are sorted by kind, and a net is rebuilt from the order within each
kind. Names count only where a graph gives their order, and nothing in the file is executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import h5py

from tinysrgan.formats.hdf5 import largest_heap, objects, texts
from tinysrgan.formats.keras.weights import keras_layers

# A layer's kind by the ranks of its arrays.
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
        return f"{self.name!r} {', '.join(str(array.shape) for array in self.arrays)}"


def layers_by_kind(file: h5py.File, order: Sequence[str] = ()) -> dict[str, list[Weights]]:
    """The layers with weights, by kind, each kind in forward order. ``order``: the layers' names in forward order.

    Raises ValueError for names of missing layers.
    """
    found: dict[str, list[Weights]] = {}
    for weights in _named_layers(file) or _ordered_layers(file, order) or _numbered_layers(file):
        ranks = tuple(array.ndim for array in weights.arrays)
        found.setdefault(KINDS.get(ranks, OTHER), []).append(weights)
    return found


def _named_layers(file: h5py.File) -> list[Weights]:
    """The layers in the order of the attributes; empty without attributes."""
    stored, heap = objects(file), largest_heap(file)
    root, group = ("model_weights/", stored["model_weights"]) if "model_weights" in stored else ("", file)
    layers: dict[PurePosixPath, Weights] = {}
    names = texts(group, "layer_names", heap)
    if len(set(names)) < len(names):
        raise ValueError("it names a layer twice")
    for layer in names:
        if not isinstance(stored.get(root + layer), h5py.Group):
            raise ValueError(f"it names a layer {layer!r} and doesn't hold it")
        for weight in texts(stored[root + layer], "weight_names", heap):
            path = PurePosixPath(root + layer, weight)  # of a model within the model, parent is the inner layer
            array = stored.get(str(path))
            if not isinstance(array, h5py.Dataset):
                raise ValueError(f"it names an array {weight!r} of layer {layer!r} and doesn't hold it")
            layers.setdefault(path.parent, Weights(path.parent.name, [])).arrays.append(array)
    return list(layers.values())


def _ordered_layers(file: h5py.File, order: Sequence[str]) -> list[Weights]:
    """Keras 3's layers in the order of their names; empty unless all have one that is in ``order``, once."""
    named = keras_layers(file)
    if len({*order}) < len(order) or not named.keys() <= {*order}:
        return []
    return [Weights(name, named[name]) for name in order if name in named]


def _numbered_layers(file: h5py.File) -> list[Weights]:
    """Keras 3's layers, sorted by class and number. Raises ValueError for models within models."""
    layers = [Weights(name, arrays) for name, arrays in keras_layers(file).items()]
    if any(array.name.count("/vars/") and array.name.count("/") > 4 for layer in layers for array in layer.arrays):
        raise ValueError(
            "it holds models within a model, which have no order in a .weights.h5 file: have Keras save it as a whole "
            "model, .h5"
        )
    return layers
