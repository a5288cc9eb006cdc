"""Read SRGAN's nets from Keras' files, whatever their layers are called.

Layers are sorted by kind (``layer_order``). The number of each kind and the shapes determine the net; the first
convolution in the file is then the first here, and so on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import zip_longest
from math import isqrt
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tinysrgan.formats.checkpoint import GENERATOR_CONFIG
from tinysrgan.formats.hdf5 import misfit
from tinysrgan.formats.keras.layer_order import OTHER, Weights, layers_by_kind
from tinysrgan.formats.keras.model_config import Step, steps
from tinysrgan.formats.keras.model_files import opened
from tinysrgan.formats.keras.value_range import STATEMENT, Ends, read_range, settle, stated
from tinysrgan.formats.keras.weights import FLOATS, WeightsError
from tinysrgan.formats.keras.wiring import check, epsilons, parts, slopes
from tinysrgan.layers import BatchNorm, Conv2D, Dense, Layer, LeakyReLU, PReLU, Sequential
from tinysrgan.models import Discriminator, Generator

MOST = 50  # problems in one message
WITH_WEIGHTS = ("Conv2D", "BatchNormalization", "PReLU", "Dense")  # Keras' layers

# Our layer of each kind, and its tensors in Keras' order.
TENSORS: dict[str, tuple[type[Layer], tuple[str, ...]]] = {
    "convolution": (Conv2D, ("w", "b")),
    "batch-norm": (BatchNorm, ("gamma", "beta", "running_mean", "running_variance")),
    "PReLU": (PReLU, ("slope",)),
    "dense layer": (Dense, ("w", "b")),
}
KERAS_NAMES = {
    "w": "kernel",
    "b": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "running_mean": "moving_mean",
    "running_variance": "moving_variance",
    "slope": "alpha",
}


class UnknownWiring(UserWarning):
    """The file holds weights alone, so the connections of its net are unknown."""

    def __init__(self, path: Path):
        super().__init__(
            f"{path} holds weights alone, which don't tell how the layers are connected: the result is right only if "
            "the net is wired as SRGAN's. Of a whole model (Keras' model.save) this is checked."
        )


def load_keras_generator(path: Path, value_range: str | None = None) -> Generator:
    """The generator in a Keras file, on the CPU and in eval mode; its images are in [-1, 1] whatever Keras' net takes.

    It may have the paper's form (pixel shuffle by ``tf.nn.depth_to_space``, PReLU shared over space) or the article's
    (nearest upsampling, 4 x filters channels). Without batch-norms, as in EDSR, PReLUs may be absent too. In whole
    models, ReLU and LeakyReLU become PReLUs of constant slopes. Kernels of the first and last convolution that are
    smaller than 9x9 are padded with zeros. ``value_range``, as in ``read_range``, is needed if the file doesn't state
    it. Warns by UnknownWiring for weights alone.

    Raises WeightsError if the file can't be read; if the value range is missing or contradicts the file; if a whole
    model's wiring differs, at the first layer; and if layers are missing, extra or misshapen, all in one message.
    """
    with opened(path) as (file, graph):
        model = parts(steps(graph, path))
        layers = _layers(file, model.net, path)
        form = _architecture(layers, path)
        told = stated(file, model, path)
        constants: list[float | None] = []
        if graph:
            constants = check(model.net, Generator(**form | {"filters": 1}, output=told.output or "linear"), path)
        ends = settle(told, read_range(value_range) if value_range else Ends(), path)
        generator = Generator(**form, output=ends.output or "linear", value_range=f"{ends.inside}:{ends.outside}")
        _fill(generator, layers, epsilons(model.net), path, constants)
        if not graph and STATEMENT not in file.attrs:
            warnings.warn(UnknownWiring(path), stacklevel=2)
    return generator.eval()


def load_keras_discriminator(path: Path, slope: float = 0.2) -> Discriminator:
    """The discriminator in a Keras file, on the CPU and in eval mode; its output is logits, without Keras' sigmoid.

    A whole model states the slope of each LeakyReLU. For weights alone, ``slope`` is that of the LeakyReLUs after
    convolutions (0.3 in the article's code); the one after the dense layer has 0.2. Its input has the range of the
    first convolution's: rescalings before it are dropped. Warns and raises as ``load_keras_generator``.
    """
    with opened(path) as (file, graph):
        model = parts(steps(graph, path))
        layers = _layers(file, model.net, path)
        convolutions, denses = layers.get("convolution", []), layers.get("dense layer", [])
        if len(convolutions) != 8 or len(denses) != 2:
            raise WeightsError(
                f"{path} holds no discriminator of SRGAN: that has 8 convolutions and 2 dense layers, and the file "
                f"{len(convolutions)} and {len(denses)}."
            )
        filters, (flat, dense) = convolutions[0].arrays[0].shape[3], denses[0].arrays[0].shape
        side = isqrt(flat // (8 * filters)) if filters else 0
        if not (1 <= filters <= 512 and 1 <= side <= 256 and 1 <= dense <= 16384):
            raise WeightsError(
                f"{path} holds a discriminator of {filters} filters and {flat} x {dense} dense weights, "
                "which is too large or none."
            )
        net = model.net[:-1] if model.net and model.net[-1].kind == "sigmoid" else model.net
        discriminator = Discriminator(16 * side, filters, dense, [*slopes(net), slope][0])
        if graph:
            check(net + model.after, discriminator, path)
            leaky = [layer for layer in discriminator.layers() if isinstance(layer, LeakyReLU)]
            for layer, its_slope in zip(leaky, slopes(net), strict=True):
                layer.slope = its_slope
        _fill(discriminator, layers, epsilons(net), path)
        if not graph:
            warnings.warn(UnknownWiring(path), stacklevel=2)
    return discriminator.eval()


# ---------------------------------------------------------------- which net it is


def _layers(file: h5py.File, net: list[Step], path: Path) -> dict[str, list[Weights]]:
    layers = layers_by_kind(file, [str(step.options.get("name")) for step in net if step.kind in WITH_WEIGHTS])
    if not layers:
        raise WeightsError(f"{path} is an HDF5 file, but not one that tinysrgan wrote, and holds no layers of Keras.")
    return layers


def _architecture(layers: dict[str, list[Weights]], path: Path) -> dict[str, Any]:
    """The generator's blocks, filters, scale, upscale and norm, from the shapes of its arrays."""
    kernels = [weights.arrays[0].shape for weights in layers.get("convolution", [])]
    norms = len(layers.get("batch-norm", []))
    filters = kernels[0][3] if kernels else 0
    doublings = sum(shape[3] == 4 * filters for shape in kernels[1:])
    blocks = norms // 2 if norms else (len(kernels) - doublings - 3) // 2  # head, tail and the body's last
    found = {"blocks": blocks, "filters": filters, "scale": 2 ** min(doublings, 9)}
    if any(value not in GENERATOR_CONFIG[name] for name, value in found.items()):
        raise WeightsError(
            f"{path} holds no generator of SRGAN's form: 1 to 64 blocks with two batch-norms each, or none (it has "
            f"{norms} batch-norms and {len(kernels)} convolutions), 1 to 512 filters (its first convolution has "
            f"{filters}), and 1 to 3 convolutions to 4 times as many, which double the size (it has {doublings})."
        )
    return {**found, "upscale": "nearest" if kernels[-1][2] == 4 * filters else "shuffle", "norm": norms > 0}


# ---------------------------------------------------------------- its tensors


def our_layers(net: Sequential) -> list[tuple[str, str, Layer]]:
    """Kind, path and layer of all layers with weights, in forward order."""
    kinds = {layer: kind for kind, (layer, _) in TENSORS.items()}
    return [(kinds[type(layer)], layer.path, layer) for layer in net.layers() if type(layer) in kinds]


def _fill(
    net: Generator | Discriminator,
    layers: dict[str, list[Weights]],
    epsilons: list[float],
    path: Path,
    constants: Sequence[float | None] = (),
) -> None:
    """Copy the file's arrays into the net. Raises WeightsError before that if anything doesn't fit.

    constants: for each PReLU in forward order the slope that the graph states, None for one with weights.
    """
    prelus = [layer for layer in net.layers() if isinstance(layer, PReLU)]
    fixed = {id(layer): slope for layer, slope in zip(prelus, constants, strict=False) if slope is not None}
    problems = [f"{weights} is extra" for weights in layers.get(OTHER, [])]
    chosen: list[tuple[str, Layer, str, h5py.Dataset]] = []
    for kind, (_, tensors) in TENSORS.items():
        ours = [(name, layer) for this, name, layer in our_layers(net) if this == kind and id(layer) not in fixed]
        for i, (here, there) in enumerate(zip_longest(ours, layers.get(kind, [])), start=1):
            if here is None:
                problems.append(f"{kind} {i}, {there}, is extra")
                continue
            name, layer = here
            shapes = {tensor: getattr(layer, tensor).value.shape for tensor in tensors}
            if kind == "PReLU":
                shapes = {"slope": (1, 1, *shapes["slope"])}
            if there is None:
                problems.append(f"{kind} {i}, {name} {', '.join(map(str, shapes.values()))}, is missing")
                continue
            for (tensor, shape), array in zip(shapes.items(), there.arrays, strict=False):
                if name in ("head.conv", "tail") and tensor == "w" and array.shape[0] in (1, 3, 5, 7):
                    shape = (*2 * array.shape[:1], *shape[2:])
                if problem := misfit(array, shape, FLOATS):
                    problems.append(f"{kind} {i}, {there.name!r} {KERAS_NAMES[tensor]} {problem}")
                chosen.append((name, layer, tensor, array))
    if problems:
        hidden = ("value_range", "grey", "norm")
        form = ", ".join(f"{name}={value}" for name, value in net.config.items() if name not in hidden)
        more = f"; and {len(problems) - MOST} more" if len(problems) > MOST else ""
        listed = "; ".join(problems[:MOST])
        raise WeightsError(f"{path} doesn't fit {type(net).__name__}({form}): {listed}{more}.")
    for name, layer, tensor, array in chosen:
        with np.errstate(over="ignore"):
            value = array[()].astype(np.float32)
        if not np.isfinite(value).all() or (tensor == "running_variance" and (value < 0).any()):
            raise WeightsError(
                f"{path} is damaged: {array.name} has values that are not finite or a negative variance."
            )
        if isinstance(net, Generator) and shuffled(name, net):
            value = _from_tensorflow(value)
        target = getattr(layer, tensor).value
        if tensor == "w" and value.ndim == 4:
            value = padded(value, len(target))
        target[...] = value.reshape(target.shape)
    for layer in prelus:
        layer.slope.value[...] = fixed.get(id(layer), layer.slope.value)
    norms = [layer for layer in net.layers() if isinstance(layer, BatchNorm)]
    for layer, epsilon in zip(norms, epsilons, strict=False):
        if epsilon != layer.epsilon:
            compensate(layer, epsilon)


def padded(kernel: np.ndarray, size: int) -> np.ndarray:
    """A kernel (R, R, C, K), zero-padded on all sides if ``size`` is larger than R."""
    margin = max(0, size - len(kernel)) // 2
    return np.pad(kernel, [(margin, margin), (margin, margin), (0, 0), (0, 0)])


def compensate(norm: BatchNorm, epsilon: float) -> None:
    """Scale gamma so that in eval mode the layer computes what it would with another epsilon."""
    variance = norm.running_variance.value
    norm.gamma.value *= np.sqrt((variance + norm.epsilon) / (variance + epsilon))


def shuffled(path: str, generator: Generator) -> bool:
    """Whether the layer at this path is the convolution before a pixel shuffle."""
    return generator.config["upscale"] == "shuffle" and path.startswith("upscale.") and path.endswith(".conv")


def _from_tensorflow(value: np.ndarray) -> np.ndarray:
    """Channels (..., 4 C) from the order of ``tf.nn.depth_to_space``, cell first, to that of ``PixelShuffle``."""
    return value.reshape(*value.shape[:-1], 4, -1).swapaxes(-1, -2).reshape(value.shape)
