"""Random variants of an image: rotated, sheared, zoomed, shifted, brighter or darker.

The article uses Keras' ``ImageDataGenerator(rotation_range=40, shear_range=0.2, zoom_range=0.2, horizontal_flip=True,
brightness_range=(0.5, 1.5))``. ``ARTICLE`` differs in two ways. The content stays in the frame: Keras cuts off corners
of half of the codes, which makes them unreadable. Images are mirrored only on request: a mirrored QR code is invalid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from tinysrgan.data.images import area_average, quantize
from tinysrgan.data.source import Source


@dataclass(frozen=True)
class Augment:
    """The range of each change; the defaults change nothing. Every variant draws each amount uniformly.

    rotation: degrees, in both directions; upright: share of variants that aren't rotated; shear: degrees, as in Keras'
    ``shear_range``; zoom: 0.2 means factors of 0.8 to 1.2, independent for width and height; flip: mirror half of the
    variants; brightness: factors; shift: LR pixels, in both directions.

    The others degrade LR only, so that the task is harder than undoing a reduction: blur: largest sigma of a Gaussian,
    in LR pixels; gain: factors of brightness; noise: largest standard deviation, in grey levels; clean: share of
    variants without blur, gain and noise.

    Raises ValueError if zoom or shift is not in [0, 1), or upright or clean not in [0, 1].
    """

    rotation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    brightness: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    blur: float = 0.0
    gain: tuple[float, float] = (1.0, 1.0)
    noise: float = 0.0
    upright: float = 0.0
    clean: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.zoom < 1 and 0 <= self.shift < 1):
            raise ValueError(f"Zoom and shift must be at least 0 and less than 1, not {self.zoom} and {self.shift}.")
        if not (0 <= self.upright <= 1 and 0 <= self.clean <= 1):
            raise ValueError(f"The shares upright and clean are from 0 to 1, not {self.upright} and {self.clean}.")

    def angle(self, rng: np.random.Generator) -> float:
        """A random rotation, in degrees."""
        if self.upright and rng.random() < self.upright:
            return 0.0
        return rng.uniform(-self.rotation, self.rotation)

    def vary(self, source: Source, size: int, lr_size: int, rng: np.random.Generator) -> Image.Image:
        """A random variant of an image, to be reduced to LR (``lr_size`` pixels wide) and HR.

        All geometric changes are one resampling to ``size`` x ``size`` pixels, a few times HR's. Without
        geometric changes, the image keeps its size.
        """
        source_size = np.array(source.image.size)
        lr_pixel = source_size / lr_size  # in pixels of the source
        angle = np.radians(self.angle(rng))
        slant = np.radians(rng.uniform(-self.shear, self.shear))
        stretch = rng.uniform(1 - self.zoom, 1 + self.zoom, 2)
        mirror = -1 if self.flip and rng.random() < 0.5 else 1
        shift = rng.uniform(-self.shift, self.shift, 2) * lr_pixel
        brightness = rng.uniform(*self.brightness)

        rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shear = np.array([[1, -np.sin(slant)], [0, np.cos(slant)]])
        forward = rotate @ shear @ np.diag(stretch * (mirror, 1))

        image = source.image
        if shift.any() or not np.allclose(forward, np.eye(2)):
            # Shrink the content if a corner of it would be closer to the edge than one LR pixel.
            centre = source_size / 2
            left, upper, right, lower = source.box
            corners = np.array([(left, upper), (left, lower), (right, upper), (right, lower)]) - centre
            reach = np.abs(corners @ forward.T).max(axis=0)
            room = centre - lr_pixel - np.abs(shift)
            forward = forward * np.minimum(1, room / reach).min()

            back = np.linalg.inv(forward)  # Pillow takes the map from the result to the source
            offset = centre - back @ (centre + shift)
            (a, b), (c, d) = back * (source_size / size)
            image = image.transform(
                (size, size),
                Image.Transform.AFFINE,
                (a, b, offset[0], c, d, offset[1]),
                Image.Resampling.BILINEAR,
                fillcolor=source.background,
            )
        return image if brightness == 1 else image.point(lambda value: round(min(255, value * brightness)))

    def degrade(self, image: Image.Image, lr_size: int, rng: np.random.Generator) -> np.ndarray:
        """Blur a variant, reduce it by area averaging, add gain and noise: uint8 (lr_size, lr_size[, 3])."""
        if self.clean and rng.random() < self.clean:
            return area_average(image, lr_size)
        sigma = rng.uniform(0, self.blur)
        if sigma:  # at four times LR's size, fine enough for a sigma below one LR pixel
            image = Image.fromarray(area_average(image, 4 * lr_size))
            image = image.filter(ImageFilter.GaussianBlur(4 * sigma))
        small = area_average(image, lr_size)
        gain, noise = rng.uniform(*self.gain), rng.uniform(0, self.noise)
        if gain == 1 and not noise:
            return small
        return quantize(small * gain + noise * rng.standard_normal(small.shape))


ARTICLE = Augment(rotation=40, shear=0.2, zoom=0.2, brightness=(0.5, 1.5))

# Degradations of small codes by a camera, in the range of the tracks of benchmarks/qr.
HARD = Augment(rotation=40, upright=0.3, shift=0.5, blur=0.7, gain=(0.7, 1), noise=6, clean=0.5)
