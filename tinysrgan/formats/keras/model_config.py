"""The graph of a whole Keras model, read from its JSON (``model_files``); nothing in it is executed.

    Keras 1 and 2   "inbound_nodes": [[["conv2d_3", 0, 0, {}]]]       for each call: layer, number of its call, output
    Keras 3         "inbound_nodes": [{"args": [{... "keras_history": ["conv2d_3", 0, 0] ...}], "kwargs": {}}]
    Sequential      no nodes: each layer takes the output of the one before

The result is a list of steps in forward order. Nested models are flattened. Layers that do nothing at inference are
left out. A layer's ``activation`` becomes a step of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from tinysrgan.formats.keras.weights import WeightsError

IMAGE = -1  # the net's input, among the inputs of a step

SHUFFLE = "pixel shuffle"  # Keras has no such layer, so users write their own
OWN_SHUFFLE = re.compile("shuffle|subpixel|depth_?to_?space", re.IGNORECASE)
CODE = "Lambda"  # Python code of the user's
OPERATION = "operation"  # arithmetic on one tensor, such as x / 255

NOTHING_AT_INFERENCE = set(
    "InputLayer Activation Identity Dropout SpatialDropout2D GaussianDropout AlphaDropout GaussianNoise "
    "ActivityRegularization".split()
)

# Other spellings: Keras 1's layers, the functions behind Keras 2's TFOpLambda, and Keras 3's operations.
SPELLINGS = {"Convolution2D": "Conv2D", "Tanh": "tanh", "Sigmoid": "sigmoid"}
FUNCTIONS = {"add": "Add", "tanh": "tanh", "sigmoid": "sigmoid"}
OPERATORS = set("Add Subtract Multiply Divide TrueDivide TFOpLambda".split())
KERAS_1_OPTIONS = {"border_mode": "padding", "subsample": "strides", "dim_ordering": "data_format"}
KERAS_1_VALUES = {"tf": "channels_last", "th": "channels_first"}


class Step(NamedTuple):
    """One call of a layer. ``inputs`` are the indices of the steps whose outputs it takes, or IMAGE."""

    kind: str
    layer: str
    options: dict[str, Any]
    inputs: tuple[int, ...]

    def __str__(self) -> str:
        return self.layer


def steps(text: str | None, path: Path) -> list[Step]:
    """The steps of a whole model, given as JSON; empty for None, a file of weights alone.

    Raises WeightsError for a graph that can't be an SRGAN's, and LookupError, TypeError, ValueError or RecursionError
    for JSON that describes no model.
    """
    if text is None:
        return []
    reader = _Reader(path)
    outputs = reader.model(json.loads(text), [IMAGE])
    if outputs != [len(reader.steps) - 1]:
        raise WeightsError(
            f"{path} holds a model of {len(outputs)} outputs, or with layers that lead to none: save the model that "
            "has only the generator's output."
        )
    return reader.steps


class _Reader:
    def __init__(self, path: Path):
        self.path = path
        self.steps: list[Step] = []

    def model(self, model: dict[str, Any], inputs: list[int]) -> list[int]:
        """Read a model that is called on ``inputs``, indices of steps; return the indices of its outputs."""
        config = model["config"]
        if isinstance(config, list) or "input_layers" not in config:
            for layer in config if isinstance(config, list) else config["layers"]:
                inputs = self.layer(layer, inputs)
            return inputs
        layers = {layer.get("name") or layer["config"]["name"]: layer for layer in map(dict, config["layers"])}
        nested = {name for name, layer in layers.items() if _is_model(layer)}

        def references(nodes: Any) -> list[tuple[tuple[str, int], int]]:
            """Call and output; a model within the model has one call, which Keras 1 and 2 number 1 and Keras 3 0."""
            return [((name, 0 if name in nested else call), output) for name, call, output in _references(nodes)]

        calls = {}
        for name, layer in layers.items():
            if name in nested and len(layer["inbound_nodes"]) > 1:
                raise WeightsError(
                    f"{self.path} calls its inner model {name!r} more than once, and in SRGAN no layers are shared: "
                    "tinysrgan can't compute this net; run it in Keras."
                )
            calls.update({(name, i): references(node) for i, node in enumerate(layer["inbound_nodes"])})
        values = {call: [value] for (call, _), value in zip(references(config["input_layers"]), cycle(inputs))}
        graph = {call: [source for source, _ in sources] for call, sources in calls.items()}
        for call in TopologicalSorter(graph).static_order():
            if call not in values:
                values[call] = self.layer(layers[call[0]], [values[source][output] for source, output in calls[call]])
        return [values[call][output] for call, output in references(config["output_layers"])]

    def layer(self, layer: dict[str, Any], inputs: list[int]) -> list[int]:
        """Read a layer that is called on ``inputs``; return the indices of its outputs."""
        if _is_model(layer):
            return self.model(layer, inputs)
        options = dict(layer["config"])
        for old, new in KERAS_1_OPTIONS.items():
            if old in options:
                options[new] = KERAS_1_VALUES.get(str(options[old]), options[old])
        label = f"layer {str(options.get('name'))[:100]!r} ({str(layer['class_name'])[:100]!r})"
        kind = _kind(str(layer["class_name"]), options, inputs)
        if kind not in NOTHING_AT_INFERENCE:
            inputs = self._add(Step(kind, label, options, tuple(inputs)))
        activation = options.get("activation") or "linear"
        if kind in ("Conv2D", "Dense", "Activation") and activation != "linear":
            kind, options = _activation(activation)
            inputs = self._add(Step(kind, f"activation {kind[:100]!r} of {label}", options, tuple(inputs)))
        return inputs

    def _add(self, step: Step) -> list[int]:
        self.steps.append(step)
        return [len(self.steps) - 1]


def _is_model(layer: dict[str, Any]) -> bool:
    return isinstance(layer["config"], list) or "layers" in layer["config"]


def _references(nodes: Any) -> Iterator[tuple[str, int, int]]:
    """Layer, call and output of all references in a node, in any spelling."""
    if isinstance(nodes, dict):
        nodes = list(nodes.values())
    if not isinstance(nodes, list):
        return
    match nodes:
        case [str(name), int(call), int(output), *more] if call >= 0:  # Keras 2 numbers constants -1
            yield name, call, output
            nodes = more
    for node in nodes:
        yield from _references(node)


def _kind(name: str, options: dict[str, Any], inputs: list[int]) -> str:
    """What a layer of the class ``name`` computes: the name of Keras' layer, or SHUFFLE, CODE or OPERATION."""
    kind = SPELLINGS.get(name, name)
    if name == "TFOpLambda":
        function = str(options.get("function")).split(".")[-1]
        kind = SHUFFLE if OWN_SHUFFLE.search(function) else FUNCTIONS.get(function, name)
    elif OWN_SHUFFLE.search(name):
        kind = SHUFFLE
    elif name == "Merge" and options.get("mode") == "sum":
        kind = "Add"
    return OPERATION if len(inputs) == 1 and kind in OPERATORS else kind


def _activation(activation: Any) -> tuple[str, dict[str, Any]]:
    """Kind and options of an activation, given as a name, a function or a layer."""
    if isinstance(activation, dict):
        inner = activation["config"]
        return (str(activation["class_name"]), inner) if isinstance(inner, dict) else (str(inner), {})
    if activation == "leaky_relu":
        return "LeakyReLU", {"negative_slope": 0.2}
    return str(activation), {}
