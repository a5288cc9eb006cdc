"""Convert a PyTorch generator (.pth, .pt) to .safetensors, which tinysrgan reads. Needs torch and safetensors.

    python examples/pth_to_safetensors.py generator.pth generator.safetensors
    python -m tinysrgan.upscale small.png large.png --weights generator.safetensors --value-range unit:tanh

A .pth is a pickle, which could run code. ``weights_only=True`` refuses everything but tensors and plain containers. The
file may hold the state_dict itself, or a checkpoint with it under a name such as "state_dict" or "params". The order of
its tensors, which is that of the layers, goes into the metadata: safetensors would lose it.
"""

from __future__ import annotations

import json
import sys

import torch
from safetensors.torch import save_file


def state_dict(content: dict) -> dict[str, torch.Tensor]:
    """The largest dict of tensors in a checkpoint."""
    found = [content, *(value for value in content.values() if isinstance(value, dict))]
    tensors = [{name: x for name, x in part.items() if isinstance(x, torch.Tensor)} for part in found]
    return max(tensors, key=len)


def main(source: str, target: str) -> None:
    weights = state_dict(torch.load(source, map_location="cpu", weights_only=True))
    weights = {name.removeprefix("module."): x.float().contiguous() for name, x in weights.items()}
    save_file(weights, target, metadata={"order": json.dumps(list(weights))})
    print(f"{target}: {len(weights)} tensors, {sum(x.numel() for x in weights.values()):,} values")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
