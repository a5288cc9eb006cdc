"""Check that the graph of a whole Keras model has the layers, options and connections of one of our nets.

The arrays alone can't tell: a generator without skip connections, with bilinear upsampling or with scaled residuals has
the same arrays as SRGAN's and gives different images.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from tinysrgan import layers
from tinysrgan.formats.keras.model_config import CODE, IMAGE, OPERATION, SHUFFLE, Step
from tinysrgan.formats.keras.weights import WeightsError

KERAS_KINDS: dict[type[layers.Layer], str] = {
    layers.Conv2D: "Conv2D",
    layers.BatchNorm: "BatchNormalization",
    layers.PReLU: "PReLU",
    layers.LeakyReLU: "LeakyReLU",
    layers.Residual: "Add",
    layers.PixelShuffle: SHUFFLE,
    layers.Upsample: "UpSampling2D",
    layers.Flatten: "Flatten",
    layers.Dense: "Dense",
    layers.Tanh: "tanh",
    layers.Sigmoid: "sigmoid",
}

# Options that change what a layer computes, with the values that match ours.
SAME_HERE: dict[str, dict[str, tuple[Any, ...]]] = {
    "Conv2D": {"padding": ("same",), "dilation_rate": ((1, 1),), "groups": (1,), "data_format": ("channels_last",)},
    "UpSampling2D": {"interpolation": ("nearest",), "size": ((2, 2),), "data_format": ("channels_last",)},
    "BatchNormalization": {"axis": (-1, 3, (-1,), (3,)), "mode": (0, 2)},  # mode: Keras 1's
    "PReLU": {"shared_axes": ((1, 2), (2, 1))},
    "Flatten": {"data_format": ("channels_last",)},
}
WAY_OUT = (
    "run this net in Keras; if it computes the same and is only written in another way, load its weights alone "
    "(model.save_weights)."
)
EPSILON = 1e-3  # Keras' default for batch-norm, and ours


class Parts(NamedTuple):
    """A net, and the rescalings before and after it."""

    before: list[Step]
    net: list[Step]
    after: list[Step]


def parts(steps: list[Step]) -> Parts:
    """Split off the chains of layers at both ends that may rescale values."""
    chained = [step.kind in ("Rescaling", CODE, OPERATION) and step.inputs == (i - 1,) for i, step in enumerate(steps)]
    start = chained.index(False) if False in chained else len(steps)
    end = max((i + 1 for i in range(start, len(steps)) if not chained[i]), default=start)
    moved = [step._replace(inputs=tuple(i - start for i in step.inputs)) for step in steps]
    return Parts(moved[:start], moved[start:end], moved[end:])


def check(steps: list[Step], net: layers.Sequential, path: Path) -> list[float | None]:
    """Raise WeightsError at the first step that differs from ``net``'s in its layer, inputs or options.

    In a generator, ReLU, LeakyReLU and, if it has no batch-norms, no layer at all may stand for a PReLU. Returns what
    each PReLU, in forward order, has for a slope: a constant (1 for no layer), or None for weights. Neither ``steps``
    nor ``net`` have rescalings at their ends.
    """
    form = f"SRGAN's {type(net).__name__.lower()}"
    expected = lay_out(net)
    optional = not any(isinstance(layer, layers.BatchNorm) for layer, _ in expected)
    found: list[float | None] = []
    places = {IMAGE: IMAGE}  # the step for each layer of ours
    before, at = "the input", 0
    for i, (layer, inputs) in enumerate(expected):
        step = steps[at] if at < len(steps) else None
        slope = constant_slope(step) if step and isinstance(layer, layers.PReLU) else None
        if optional and isinstance(layer, layers.PReLU) and slope is None and (step is None or step.kind != "PReLU"):
            found.append(1.0)
            places[i] = places[inputs[0]]
            continue
        if step is None or (slope is None and not _same_kind(layer, step)):
            wanted = KERAS_KINDS[type(layer)]
            raise WeightsError(
                f"{path} is not wired as {form}: after {before} comes {step or 'the end'} instead of {wanted}; "
                f"{WAY_OUT}"
            )
        if isinstance(layer, layers.PReLU):
            found.append(slope)
        sources = sorted(places[source] for source in inputs)
        if sorted(step.inputs) != sources:
            taken, wanted = (" and ".join(_name(i, steps) for i in both) for both in (sorted(step.inputs), sources))
            raise WeightsError(f"{path} is not wired as {form}: {step} takes {taken} instead of {wanted}; {WAY_OUT}")
        _check_options(step, layer, path)
        before, places[i], at = str(step), at, at + 1
    if at < len(steps):
        raise WeightsError(
            f"{path} is not wired as {form}: after {before} comes {steps[at]} instead of the end; {WAY_OUT}"
        )
    return found


def constant_slope(step: Step) -> float | None:
    """The slope of a ReLU or LeakyReLU; None for any other layer, and for a ReLU with a limit or threshold."""
    options = step.options
    if step.kind == "LeakyReLU":
        return slopes([step])[0]
    if step.kind == "relu":
        return 0.0
    if step.kind == "ReLU" and options.get("max_value") is None and not options.get("threshold"):
        return float(options.get("negative_slope") or 0)
    return None


def epsilons(steps: list[Step]) -> list[float]:
    """Each batch-norm's epsilon, in forward order."""
    return [float(step.options.get("epsilon", EPSILON)) for step in steps if step.kind == "BatchNormalization"]


def slopes(steps: list[Step]) -> list[float]:
    """Each LeakyReLU's slope, in forward order; alpha in Keras 1 and 2. Keras' default is 0.3."""
    found = [step.options for step in steps if step.kind == "LeakyReLU"]
    return [float(options.get("negative_slope", options.get("alpha", 0.3))) for options in found]


Ours = tuple[layers.Layer, tuple[int, ...]]  # a layer and the indices of the steps whose outputs it takes


def lay_out(net: layers.Layer) -> list[Ours]:
    """The steps of a net, without rescalings at its ends."""
    found: list[Ours] = []
    _lay_out(net, IMAGE, found)
    return found


def _lay_out(layer: layers.Layer, source: int, found: list[Ours]) -> int:
    """Append the steps of a layer whose input is step ``source``; return the last index. A Residual ends in an Add."""
    inputs: tuple[int, ...] = (source,)
    if isinstance(layer, layers.Rescale):
        return source
    if isinstance(layer, layers.Sequential):
        for child in layer.chain.values():
            source = _lay_out(child, source, found)
        if not isinstance(layer, layers.Residual):
            return source
        inputs = (*inputs, source)
    found.append((layer, inputs))
    return len(found) - 1


def _same_kind(layer: layers.Layer, step: Step) -> bool:
    kind = KERAS_KINDS[type(layer)]
    return step.kind == kind or (kind == SHUFFLE and step.kind == CODE)


def _name(index: int, steps: list[Step]) -> str:
    return str(steps[index]) if index >= 0 else "the image"


def _check_options(step: Step, layer: layers.Layer, path: Path) -> None:
    wanted = dict(SAME_HERE.get(step.kind, {}))
    if isinstance(layer, layers.Conv2D):
        wanted["strides"] = ((layer.stride, layer.stride),)
    for option, values in wanted.items():
        given = step.options.get(option, values[0])
        if (tuple(given) if isinstance(given, list) else given) not in values:
            raise WeightsError(f"{path}: {step} has {option} {given!r}, not {values[0]!r} as in SRGAN; {WAY_OUT}")
    epsilon = step.options.get("epsilon", EPSILON)
    if step.kind == "BatchNormalization" and not 0 < float(epsilon) < math.inf:
        raise WeightsError(f"{path}: {step} has epsilon {epsilon}, not a small number above 0.")
