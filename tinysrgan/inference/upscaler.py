"""The Python interface:

    import tinysrgan
    upscaler = tinysrgan.load()
    clear = upscaler(blurry)

``blurry`` is a Pillow image or a NumPy array, and so is ``clear``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, overload

import numpy as np
from PIL import Image

from tinysrgan.core.errors import UnlikeWarning, UserError
from tinysrgan.core.paths import WEIGHTS
from tinysrgan.data.image_modes import eight_bits, from_array, lay_on_white
from tinysrgan.data.images import to_uint8, to_unit
from tinysrgan.formats.generator_files import read_generator
from tinysrgan.inference.colour import Chroma
from tinysrgan.inference.fidelity import Comparison, Fidelity
from tinysrgan.inference.fuse import fuse
from tinysrgan.inference.orientations import upscale_in_orientations
from tinysrgan.inference.tiles import Box, upscale_in_tiles
from tinysrgan.models import Generator
from tinysrgan.ops.device import choose_device

SHIPPED = "qr_x4_camera.h5"  # the file in weights/ that reads most of real photographs
FEW_PIXELS = 100_000  # an image of so few pixels can be upscaled in every orientation within seconds
UNLIKE = (
    "The result is unlike the image: shrunk back, it is another picture. Load a generator that was trained on such "
    "images; those that ship with tinysrgan are for QR codes."
)


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    value_range: str | None = None,
    orientations: int | None = None,
) -> Upscaler:
    """Load a trained generator: the shipped one (default), any file that training wrote, Keras' .h5 or .keras, or
    PyTorch's weights as .safetensors.

    device: "cpu", "cuda", or "auto": a GPU if one works. value_range: for others' files that don't state it, "IN" or
    "IN:OUT", each of them "signed" (-1 to 1), "unit" (0 to 1) or "bytes" (0 to 255), and OUT "tanh" or "sigmoid" if the
    net ends in one. orientations: as in ``Upscaler``. Raises UserError (a ValueError) if the file is absent, damaged or
    holds no generator, or if "cuda" doesn't work.
    """
    path = WEIGHTS / SHIPPED if weights is None else Path(weights)
    if weights is None and not path.exists():
        raise UserError(
            f"The generator that ships with tinysrgan is not at {path}: train one with `python -m tinysrgan.train` "
            "and give its generator.h5 as the weights."
        )
    return Upscaler(read_generator(path, value_range), device, orientations)


class Upscaler:
    """Upscales images: call it with an image to get one ``scale`` times as wide and as high.

    It switches the generator to eval mode and runs a copy of it, fused by ``fuse``, on the device ("auto", "cpu" or
    "cuda"); ``where`` names that device. Raises UserError if "cuda" doesn't work.

    orientations: 1, or 8 for the mean over all orientations of an image, which takes eight times as long and is better
    (``orientations.py``). The default is 8 for images of up to FEW_PIXELS pixels if the generator was trained on grey
    images only, as those for QR codes, and 1 otherwise.

    It can be pickled, for multiprocessing: the other process chooses its device at the first image.
    """

    def __init__(self, generator: Generator, device: str = "auto", orientations: int | None = None):
        if orientations not in (None, 1, 8):
            raise UserError(f"orientations is 1 or 8, not {orientations}.")
        self.device = device
        self.orientations = orientations
        self.net = fuse(generator.eval())
        self.scale = generator.scale
        self.grey = generator.config["grey"]  # trained on grey images only
        _ = self._place  # raise an error now, not at the first image

    @cached_property
    def _place(self) -> tuple[ModuleType, str]:
        """Move the net to the device; return its array module and a description of the device."""
        module, where = choose_device(self.device)
        self.net.to(module)
        return module, where

    @property
    def where(self) -> str:
        return self._place[1]

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_place"}
        state["net"] = deepcopy(self.net).to(np)
        return state

    @overload
    def __call__(self, image: np.ndarray, progress: Callable[[int], object] | None = None) -> np.ndarray: ...
    @overload
    def __call__(self, image: Image.Image, progress: Callable[[int], object] | None = None) -> Image.Image: ...
    def __call__(
        self, image: np.ndarray | Image.Image, progress: Callable[[int], object] | None = None
    ) -> np.ndarray | Image.Image:
        """Upscale an image; the image itself is not changed.

        image: an array, uint8 (0..255) or uint16 (0..65535), of shape (H, W), (H, W, 1) for grey, (H, W, 3) for
        RGB, (H, W, 2) or (H, W, 4) with alpha as the last channel; the result is uint8 with as many channels,
        (scale H, scale W[, C]). Or a Pillow image of any mode; the result has mode L, LA, RGB or RGBA, rotated
        upright according to EXIF. Any size from 1x1 is accepted; large images are computed in tiles, with the
        same result.

        Grey images, and RGB images whose channels are equal, give grey results. A generator trained on grey
        images only gets the luma of a colour image; the chroma is enlarged by bicubic interpolation. So is
        alpha; the colours are chosen so that the result blended with white equals the upscaled image blended
        with white. ``progress`` is called with the number of pixels of ``image`` that are done since its last
        call.

        Warns with ``errors.UnlikeWarning`` if the result, shrunk back, differs from the image. Raises UserError
        (a ValueError) for any other array or mode, and if the generator's values overflow; OSError for a Pillow
        image whose file is damaged.
        """
        if isinstance(image, Image.Image):
            picture = eight_bits(image)
        elif isinstance(image, np.ndarray):
            picture = from_array(image)
        else:
            raise UserError(f"An image is a NumPy array or a Pillow image, not {type(image).__name__}.")
        result, fidelity = self.upscale(picture, progress)
        if not fidelity.suits:
            warnings.warn(UNLIKE, UnlikeWarning, stacklevel=2)
        if isinstance(image, Image.Image):
            return result
        return np.array(result).reshape(self.scale * image.shape[0], self.scale * image.shape[1], *image.shape[2:])

    def upscale(
        self, image: Image.Image, progress: Callable[[int], object] | None = None
    ) -> tuple[Image.Image, Fidelity]:
        """Upscale an image of mode L, LA, RGB or RGBA; return its fidelity instead of warning.

        ``progress`` and errors are as in ``__call__``.
        """
        size = (self.scale * image.width, self.scale * image.height)
        alpha = image.getchannel("A").resize(size, Image.Resampling.BICUBIC) if "A" in image.mode else None
        paper = lay_on_white(image).convert("RGB")
        pixels = np.asarray(paper)
        grey = bool((pixels == pixels[:, :, :1]).all())
        chroma = Chroma(paper) if self.grey and not grey else None
        if chroma:
            pixels = np.asarray(chroma.luma.convert("RGB"))
        comparison, whole = Comparison(self.scale), Box(0, image.height, 0, image.width)
        result = Image.new("L" if image.mode in ("L", "LA") else "RGB", size)
        few = self.grey and image.width * image.height <= FEW_PIXELS
        every = self.orientations == 8 or (self.orientations is None and few)
        for box, y in (upscale_in_orientations if every else upscale_in_tiles)(self.net, pixels, self._place[0]):
            if not np.isfinite(y).all():
                raise UserError("The generator's values overflow on this image: its weights are no good.")
            corner = (self.scale * box.left, self.scale * box.top)
            if grey or chroma:
                y = y.mean(axis=2, keepdims=True)
            comparison.add(to_unit(box.of(pixels, whole)[:, :, : y.shape[2]]), y)
            if chroma:
                y = chroma.add_to(y, (box.left, box.top, box.right, box.bottom))
            if alpha:
                opacity = np.asarray(alpha.crop((*corner, self.scale * box.right, self.scale * box.bottom)))
                y = 1 - (1 - y) / np.maximum(opacity / np.float32(255), 1 / 255)[:, :, None]
            tile = to_uint8(y)
            result.paste(Image.fromarray(tile[:, :, 0] if grey else tile), corner)
            if progress:
                progress((box.bottom - box.top) * (box.right - box.left))
        if alpha:
            result.putalpha(alpha)
        return result, comparison.fidelity()
