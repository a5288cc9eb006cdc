"""Write a generator as an ONNX model, through the package onnx.

    image (N, 3, H, W), float32 in [-1, 1]  ->  result (N, 3, scale H, scale W), about [-1, 1]

N, H and W are free. Layers keep their names. ONNX has channels first: kernels (R, S, C, K) become (K, C, R, S).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinysrgan import layers
from tinysrgan.core.cli import write
from tinysrgan.core.device import to_device
from tinysrgan.core.errors import UserError
from tinysrgan.models import Generator

OPSET = 17  # of 2022, which every runtime in use knows
MISSING = "Writing ONNX needs the package onnx: install it with `pip install onnx`."


def save_onnx_generator(path: Path, generator: Generator) -> None:
    """Write a generator, in eval mode, as an ONNX model.

    Raises UserError without the package onnx or if the file can't be written; the old file is then intact.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError:
        raise UserError(MISSING) from None

    def tensor(name: str, *size: str) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3, *size])

    graph = _Graph()
    result = graph.add(generator, "image")
    graph.node("Identity", "result", [result])
    nodes = [
        helper.make_node(kind, inputs, [name], name=name, **options) for kind, name, inputs, options in graph.nodes
    ]
    values = [onnx.numpy_helper.from_array(value, name) for name, value in graph.values.items()]
    ends = [tensor("image", "H", "W")], [tensor("result", "large H", "large W")]
    model = helper.make_model(
        helper.make_graph(nodes, "generator", *ends, values),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="tinysrgan",
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    write(path, model.SerializeToString())


class _Graph:
    """Nodes as (operator, name, inputs, options); a node's output has its name."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, str, list[str], dict[str, Any]]] = []
        self.values: dict[str, np.ndarray] = {}

    def node(self, kind: str, name: str, inputs: list[str], **options: Any) -> str:
        self.nodes.append((kind, name, inputs, options))
        return name

    def value(self, name: str, value: Any) -> str:
        self.values[name] = np.ascontiguousarray(to_device(value, np), np.float32)
        return name

    def add(self, layer: layers.Layer, x: str) -> str:
        """Append a layer that takes the output of the node ``x``; return the name of its own."""
        name = layer.path or "generator"
        match layer:
            case layers.Sequential():
                y = x
                for child in layer.chain.values():
                    y = self.add(child, y)
                return self.node("Add", f"{name}.add", [x, y]) if isinstance(layer, layers.Residual) else y
            case layers.Conv2D():
                w = self.value(f"{name}.w", layer.w.value.transpose(3, 2, 0, 1))
                inputs = [x, w, self.value(f"{name}.b", layer.b.value)]
                return self.node("Conv", name, inputs, pads=[len(layer.w.value) // 2] * 4)
            case layers.BatchNorm():
                names = ("gamma", "beta", "running_mean", "running_variance")
                inputs = [x, *(self.value(f"{name}.{part}", getattr(layer, part).value) for part in names)]
                return self.node("BatchNormalization", name, inputs, epsilon=layer.epsilon)
            case layers.PReLU():
                return self.node("PRelu", name, [x, self.value(f"{name}.slope", layer.slope.value[:, None, None])])
            case layers.PixelShuffle():  # channels are (c, i, j), ONNX's column-row-depth
                return self.node("DepthToSpace", name, [x], blocksize=2, mode="CRD")
            case layers.Upsample():
                sizes = self.value(f"{name}.scales", np.array([1, 1, 2, 2]))
                rounding = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
                return self.node("Resize", name, [x, "", sizes], mode="nearest", **rounding)
            case layers.Rescale():
                y = self.node("Mul", f"{name}.times", [x, self.value(f"{name}.factor", np.array(layer.factor))])
                return self.node("Add", name, [y, self.value(f"{name}.offset", np.array(layer.offset))])
        return self.node("Tanh" if isinstance(layer, layers.Tanh) else "Sigmoid", name, [x])
