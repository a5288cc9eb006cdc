"""tinysrgan: an SRGAN from scratch on NumPy, small enough to be read in an afternoon.

Start with ``train.py`` (the idea), then ``layers/`` (the mathematics) and ``models/`` (the nets). To use a trained
generator from Python: ``tinysrgan.load()``, see ``inference/upscaler.py``; to read a photograph's codes:
``tinysrgan.rescue()``, see ``rescue.py``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinysrgan.inference.upscaler import Upscaler, load
    from tinysrgan.rescue import rescue

__version__ = "0.2.0"
__all__ = ["Upscaler", "load", "rescue"]


def __getattr__(name: str) -> Any:
    """Import what these need only once they are asked for: most of the package does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "rescue":  # a module that can be called, so that it doesn't matter who imports it first
        return importlib.import_module("tinysrgan.rescue")
    from tinysrgan.inference import upscaler as upscaler_module

    return getattr(upscaler_module, name)
