"""Read SRGAN's nets from Keras' HDF5 files, whatever their layers are called, and write generators.

Layers are sorted by kind (``layer_order``). The number of each kind and the shapes determine the net; the first
convolution in the file is then the first here, and so on.
"""

from __future__ import annotations

import io
import json
import warnings
from itertools import zip_longest
from math import isqrt
from pathlib import Path

import h5py
import numpy as np

from tinysrgan.core.cli import write
from tinysrgan.core.device import to_device
from tinysrgan.formats.checkpoint import GENERATOR_CONFIG
from tinysrgan.formats.hdf5 import misfit, reading
from tinysrgan.formats.keras.layer_order import OTHER, Weights, layers_by_kind
from tinysrgan.formats.keras.model_config import is_whole_model, steps
from tinysrgan.formats.keras.value_range import STATEMENT, Ends, read_range, settle, stated
from tinysrgan.formats.keras.weights import FLOATS, WeightsError
from tinysrgan.formats.keras.wiring import check, epsilons, parts, slopes
from tinysrgan.layers import BatchNorm, Conv2D, Dense, Layer, LeakyReLU, PReLU, Sequential
from tinysrgan.models import Discriminator, Generator

MOST = 50  # problems in one message

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
    (nearest upsampling, 4 x filters channels). ``value_range``, as in ``read_range``, is needed if the file doesn't
    state it. Warns by UnknownWiring for weights alone.

    Raises WeightsError if the file can't be read; if the value range is missing or contradicts the file; if a whole
    model's wiring differs, at the first layer; and if layers are missing, extra or misshapen, all in one message.
    """
    with reading(path, WeightsError) as file:
        layers = _layers(file, path)
        model = parts(steps(file))
        blocks, filters, scale, upscale = _architecture(layers, path)
        told = stated(file, model, path)
        if is_whole_model(file):
            check(model.net, Generator(blocks, 1, scale, upscale, told.output or "linear"), path)
        ends = settle(told, read_range(value_range) if value_range else Ends(), path)
        generator = Generator(blocks, filters, scale, upscale, ends.output or "linear", f"{ends.inside}:{ends.outside}")
        _fill(generator, layers, epsilons(model.net), path)
        if not is_whole_model(file) and STATEMENT not in file.attrs:
            warnings.warn(UnknownWiring(path), stacklevel=2)
    return generator.eval()


def load_keras_discriminator(path: Path, slope: float = 0.2) -> Discriminator:
    """The discriminator in a Keras file, on the CPU and in eval mode; its output is logits, without Keras' sigmoid.

    A whole model states the slope of each LeakyReLU. For weights alone, ``slope`` is that of the LeakyReLUs after
    convolutions (0.3 in the article's code); the one after the dense layer has 0.2. Its input has the range of the
    first convolution's: rescalings before it are dropped. Warns and raises as ``load_keras_generator``.
    """
    with reading(path, WeightsError) as file:
        layers = _layers(file, path)
        model = parts(steps(file))
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
        if is_whole_model(file):
            check(net + model.after, discriminator, path)
            leaky = [layer for layer in discriminator.layers() if isinstance(layer, LeakyReLU)]
            for layer, its_slope in zip(leaky, slopes(net), strict=True):
                layer.slope = its_slope
        _fill(discriminator, layers, epsilons(net), path)
        if not is_whole_model(file):
            warnings.warn(UnknownWiring(path), stacklevel=2)
    return discriminator.eval()


def save_keras_generator(path: Path, generator: Generator) -> None:
    """Write a generator as Keras' weights (.h5), for ``load_weights`` of a Keras model of the same form.

    All convolutions have biases, and batch-norm's epsilon is Keras' default. ``load_keras_generator`` restores every
    bit. Raises UserError if the file can't be written; the old file is then intact.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        names = []
        for kind, path_here, layer in _our_layers(generator):
            name = path_here.replace(".", "_")
            names.append(name)
            group = file.create_group(name)
            arrays = {f"{name}/{KERAS_NAMES[tensor]}:0": tensor for tensor in TENSORS[kind][1]}
            group.attrs["weight_names"] = [weight.encode() for weight in arrays]
            for weight, tensor in arrays.items():
                value = to_device(getattr(layer, tensor).value, np)
                if _shuffled(path_here, generator):
                    value = _to_tensorflow(value)
                group[weight] = value.reshape(1, 1, -1) if kind == "PReLU" else value
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        ends = {key: generator.config[key] for key in ("value_range", "output")}
        file.attrs[STATEMENT] = json.dumps(ends)
    write(path, image.getbuffer())


# ---------------------------------------------------------------- which net it is


def _layers(file: h5py.File, path: Path) -> dict[str, list[Weights]]:
    layers = layers_by_kind(file)
    if not layers:
        raise WeightsError(f"{path} is an HDF5 file, but not one that tinysrgan wrote, and holds no layers of Keras.")
    return layers


def _architecture(layers: dict[str, list[Weights]], path: Path) -> tuple[int, int, int, str]:
    """The generator's blocks, filters, scale and upscale, from the shapes of its arrays."""
    kernels = [weights.arrays[0].shape for weights in layers.get("convolution", [])]
    norms = len(layers.get("batch-norm", []))
    filters = kernels[0][3] if kernels else 0
    blocks = norms // 2
    doublings = sum(shape[3] == 4 * filters for shape in kernels[1:])
    scale = 2 ** min(doublings, 9)
    found = {"blocks": blocks, "filters": filters, "scale": scale}
    if any(value not in GENERATOR_CONFIG[name] for name, value in found.items()):
        raise WeightsError(
            f"{path} holds no generator of SRGAN's form: 1 to 64 blocks with two batch-norms each (it has {norms} "
            f"batch-norms), 1 to 512 filters (its first convolution has {filters}), and 1 to 3 convolutions to 4 times "
            f"as many, which double the size (it has {doublings})."
        )
    return blocks, filters, scale, "nearest" if kernels[-1][2] == 4 * filters else "shuffle"


# ---------------------------------------------------------------- its tensors


def _our_layers(net: Sequential) -> list[tuple[str, str, Layer]]:
    """Kind, path and layer of all layers with weights, in forward order."""
    kinds = {layer: kind for kind, (layer, _) in TENSORS.items()}
    return [(kinds[type(layer)], layer.path, layer) for layer in net.layers() if type(layer) in kinds]


def _fill(net: Generator | Discriminator, layers: dict[str, list[Weights]], epsilons: list[float], path: Path) -> None:
    """Copy the file's arrays into the net. Raises WeightsError before that if anything doesn't fit."""
    problems = [f"{weights} is extra" for weights in layers.get(OTHER, [])]
    chosen: list[tuple[str, Layer, str, h5py.Dataset]] = []
    for kind, (_, tensors) in TENSORS.items():
        ours = [(name, layer) for this, name, layer in _our_layers(net) if this == kind]
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
                if problem := misfit(array, shape, FLOATS):
                    problems.append(f"{kind} {i}, {there.name!r} {KERAS_NAMES[tensor]} {problem}")
                chosen.append((name, layer, tensor, array))
    if problems:
        form = ", ".join(f"{name}={value}" for name, value in net.config.items() if name not in ("value_range", "grey"))
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
        if isinstance(net, Generator) and _shuffled(name, net):
            value = _from_tensorflow(value)
        target = getattr(layer, tensor).value
        target[...] = value.reshape(target.shape)
    norms = [layer for layer in net.layers() if isinstance(layer, BatchNorm)]
    for layer, epsilon in zip(norms, epsilons, strict=False):
        if epsilon != layer.epsilon:  # gamma compensates
            variance = layer.running_variance.value
            layer.gamma.value *= np.sqrt((variance + layer.epsilon) / (variance + epsilon))


def _shuffled(path: str, generator: Generator) -> bool:
    """Whether the layer at this path is the convolution before a pixel shuffle."""
    return generator.config["upscale"] == "shuffle" and path.startswith("upscale.") and path.endswith(".conv")


def _from_tensorflow(value: np.ndarray) -> np.ndarray:
    """Channels (..., 4 C) from the order of ``tf.nn.depth_to_space``, cell first, to that of ``PixelShuffle``."""
    return value.reshape(*value.shape[:-1], 4, -1).swapaxes(-1, -2).reshape(value.shape)


def _to_tensorflow(value: np.ndarray) -> np.ndarray:
    """The inverse of ``_from_tensorflow``."""
    return value.reshape(*value.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(value.shape)
