"""How the layers of a Keras model are set up, as a file of a whole model says in JSON; nothing of it is ever executed.

Of a generator that tells what its arrays don't: the range of the values at both ends, the last activation, and
whether its layers really do what those of the same name here do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from tinysrgan.core.errors import UserError
from tinysrgan.formats.hdf5 import attribute
from tinysrgan.formats.keras.weights import WeightsError
from tinysrgan.models.generator import OUTPUTS, RANGES, VALUE_RANGES, rescale

STATEMENT = "tinysrgan"  # the attribute in which our own exports state what the arrays don't tell
EPSILON = 1e-3  # Keras' default for batch-norm, and ours


class Setup(NamedTuple):
    """A layer's class and options, as Keras' ``get_config`` gives them."""

    kind: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"layer {self.options.get('name')!r} ({self.kind!r})"


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


# The layers that Keras models of an SRGAN are made of; pixel shuffle has no layer in Keras, so it has many names.
KNOWN = set(
    "InputLayer Conv2D BatchNormalization PReLU LeakyReLU Add UpSampling2D Activation Rescaling Dropout Flatten Dense "
    "GlobalAveragePooling2D".split()
)
OWN_LAYER = re.compile("lambda|shuffle|subpixel|depth_?to_?space", re.IGNORECASE)


SAME_HERE: dict[str, dict[str, Any]] = {  # options with another effect if they have other values
    "Conv2D": {"padding": "same", "dilation_rate": (1, 1), "groups": 1, "data_format": "channels_last"},
    "UpSampling2D": {"interpolation": "nearest", "size": (2, 2), "data_format": "channels_last"},
}


def check(model: list[Setup], path: Path, strides: tuple[int, ...] = (1,)) -> None:
    """Raise WeightsError for a layer that an SRGAN has not, or that computes something else than the one here."""
    for layer in model:
        kind, options = layer
        if kind not in KNOWN and not OWN_LAYER.search(f"{kind} {options.get('name')}"):
            raise WeightsError(
                f"{path} has a {layer}, which SRGANs have not; if it only rescales the values, save the weights alone."
            )
        wanted: dict[str, tuple[Any, ...]] = {option: (value,) for option, value in SAME_HERE.get(kind, {}).items()}
        if kind == "Conv2D":
            wanted["strides"] = tuple((stride, stride) for stride in strides)
        if kind == "BatchNormalization" and not 0 < float(options.get("epsilon", EPSILON)) < math.inf:
            raise WeightsError(f"{path}: {layer} has epsilon {options['epsilon']}, not a small number above 0.")
        for option, values in wanted.items():
            given = options.get(option, values[0])
            if (tuple(given) if isinstance(given, list) else given) not in values:
                raise WeightsError(f"{path}: {layer} has {option} {given!r}, not {values[0]}.")


def epsilons(model: list[Setup]) -> list[float]:
    """What each batch-norm adds to the variance, in forward order; none for a file of weights alone."""
    return [float(options.get("epsilon", EPSILON)) for kind, options in model if kind == "BatchNormalization"]


def slopes(model: list[Setup]) -> list[float]:
    """Those of the LeakyReLUs, in forward order; Keras 2 calls them alpha."""
    return [
        float(options.get("negative_slope", options.get("alpha", 0.3)))
        for kind, options in model
        if kind == "LeakyReLU"
    ]


# ---------------------------------------------------------------- both ends of a generator


class Ends(NamedTuple):
    """The value ranges at both ends of a generator, and its last activation; None for what isn't known."""

    inside: str | None = None
    outside: str | None = None
    output: str | None = None


def read_range(text: str) -> Ends:
    """Read "IN:OUT", or one word for both: RANGES, and for OUT also "tanh" or "sigmoid". Raises UserError."""
    inside, _, outside = text.partition(":")
    output = {"tanh": "signed", "sigmoid": "unit"}.get(outside)
    ends = Ends(inside, output or outside or inside, outside if output else None)
    if f"{ends.inside}:{ends.outside}" not in VALUE_RANGES:
        raise UserError(
            f"The value range '{text}' is not IN or IN:OUT, with {', '.join(RANGES)} for both, and for OUT also tanh "
            "and sigmoid."
        )
    return ends


def stated(file: h5py.File, model: list[Setup], path: Path) -> Ends:
    """What the file itself says of the ends: an export of ours, or a whole model's rescalings and activations.

    Raises WeightsError where a generator has no such activation, or rescaling.
    """
    statement = attribute(file, STATEMENT)
    if statement is not None:
        told = json.loads(statement)
        inside, outside = told["value_range"].split(":")
        return _checked(Ends(inside, outside, told["output"]), path)
    convolutions = [i for i, layer in enumerate(model) if layer.kind == "Conv2D"]
    if not convolutions:
        return Ends()
    inside = outside = None
    output = "linear"
    for i, layer in enumerate(model):
        activation = layer.options.get("activation") or "linear"
        if layer.kind in ("Conv2D", "Activation") and activation != "linear":
            if i < convolutions[-1] or activation not in OUTPUTS:
                raise WeightsError(
                    f"{path}: {layer} has activation {activation!r}, which no generator of SRGAN has there."
                )
            output = activation
        if layer.kind == "Rescaling":
            source, target = _ranges(layer, path)
            if i < convolutions[0]:
                inside = target
            elif i > convolutions[-1]:
                outside = source
    return Ends(inside, {"tanh": "signed", "sigmoid": "unit"}.get(output, outside), output)


def _ranges(layer: Setup, path: Path) -> tuple[str, str]:
    """The ranges between which a Rescaling goes; its two numbers tell both."""
    factor, offset = layer.options.get("scale"), layer.options.get("offset")
    if isinstance(factor, int | float) and isinstance(offset, int | float):
        for source, target in permutations(RANGES, 2):
            ours = rescale(source, target)
            if math.isclose(factor, ours.factor, rel_tol=1e-5) and math.isclose(offset, ours.offset, abs_tol=1e-5):
                return source, target
    raise WeightsError(f"{path}: {layer} goes between none of the ranges {', '.join(RANGES)}.")


def _checked(ends: Ends, path: Path) -> Ends:
    if f"{ends.inside}:{ends.outside}" not in VALUE_RANGES or ends.output not in OUTPUTS:
        raise WeightsError(f"{path} states a value range that there isn't: {ends}.")
    return ends


def settle(stated: Ends, given: Ends, path: Path) -> Ends:
    """Both together. Raises WeightsError where they contradict each other, or leave a range open."""
    for known, wanted in zip(stated, given, strict=True):
        if known and wanted and known != wanted:
            raise WeightsError(
                f"{path} states that its net has {known} where --value-range says {wanted}: leave it out."
            )
    ends = Ends(*(known or wanted for known, wanted in zip(stated, given, strict=True)))
    if not ends.inside or not ends.outside:
        raise WeightsError(
            f"{path} doesn't state the range of its net's values: add --value-range IN:OUT, each of them signed "
            "(-1 to 1), unit (0 to 1) or bytes (0 to 255), and OUT tanh or sigmoid where the net ends in one; the "
            "article's is bytes:bytes, the best-known Keras port's unit:tanh."
        )
    return ends
