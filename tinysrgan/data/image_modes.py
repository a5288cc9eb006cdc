"""Convert Pillow images and arrays to 8 bits a channel, in mode L, LA, RGB or RGBA."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from tinysrgan.core.errors import UserError


def eight_bits(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to L, LA, RGB or RGBA, rotated upright according to its EXIF.

    Raises UserError if the range of the mode's values is unknown, OSError for a damaged file.
    """
    image = ImageOps.exif_transpose(image)
    if not image.width or not image.height:
        raise UserError(f"An image of {image.width}x{image.height} pixels has nothing to upscale.")
    if image.mode == "F":
        raise UserError("Pixels that are floating-point numbers have no known range: save them with 8 or 16 bits.")
    if image.mode.startswith("I"):  # Pillow would clip them, not scale
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise UserError("Pixels of more than 16 bits have no known range: save them with 8 or 16 bits.")
        return Image.fromarray(_from_16_bits(pixels))
    grey = image.mode in ("1", "L", "LA", "La")
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return image.convert("LA") if grey else image
        return image.convert("L" if grey else "RGB")
    except ValueError as error:
        raise UserError(f"Colours of Pillow's mode {image.mode} can't be converted: save the image as RGB.") from error


def lay_on_white(image: Image.Image) -> Image.Image:
    """Blend an image of mode L, LA, RGB or RGBA with white; the result has mode L or RGB."""
    if "A" not in image.mode:
        return image
    colour = image.mode.removesuffix("A")
    paper = Image.new(colour, image.size, "white")
    paper.paste(image.convert(colour), mask=image.getchannel("A"))
    return paper


def from_array(pixels: np.ndarray) -> Image.Image:
    """Convert an array to an image of mode L, LA, RGB or RGBA. Raises UserError for other shapes or dtypes."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or not 1 <= channels <= 4 or not pixels.size:
        raise UserError(
            f"An image is an array (H, W) or (H, W, C) with 1 to 4 channels C and at least one pixel, "
            f"not {pixels.shape}."
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"An image is an array of uint8, 0 to 255, or uint16, 0 to 65535, not {pixels.dtype}: scale and convert it."
        )
    eight = pixels if pixels.dtype == np.uint8 else _from_16_bits(pixels)
    return Image.fromarray(np.ascontiguousarray(eight[:, :, 0] if channels == 1 and eight.ndim == 3 else eight))


def _from_16_bits(pixels: np.ndarray) -> np.ndarray:
    """Convert 16-bit values (0..65535) to uint8 (0..255)."""
    return (pixels / np.float32(257)).round().astype(np.uint8)
