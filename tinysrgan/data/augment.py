"""Variants of an image: turned, sheared, zoomed, shifted, brighter or darker, as the article makes them.

The article took Keras' ``ImageDataGenerator(rotation_range=40, shear_range=0.2, zoom_range=0.2, horizontal_flip=True,
brightness_range=(0.5, 1.5))``. The same here, but for two things: what is in the picture stays in the frame (Keras'
zoom and rotation cut the corners off half of the codes, which then can't be read by anybody), and images are not
mirrored unless asked for, since a mirrored QR code is not a QR code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from tinysrgan.data.images import area_average

TOLERANCE = 32  # grey levels; so much may a background differ from itself, for JPEG's sake


class Source:
    """An image with what its variants need to know: its background, and where in it there is something."""

    def __init__(self, image: Image.Image):
        self.image = image

    @cached_property
    def background(self) -> tuple[int, ...]:
        """The colour of the outermost pixels, or white where they differ, as in a QR code without a border."""
        pixels = np.asarray(self.image)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).reshape(-1, pixels[0, 0].size)
        colour = np.median(edge, axis=0)
        plain = np.mean(np.abs(edge - colour).max(axis=1) <= TOLERANCE) >= 0.9
        return tuple(int(value) for value in colour) if plain else (255,) * len(colour)

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Left, upper, right, lower of all that isn't background; the whole image if there is nothing else."""
        plain = Image.new(self.image.mode, self.image.size, self.background)
        difference = ImageChops.difference(self.image, plain).point(lambda value: 255 * (value > TOLERANCE))
        return difference.getbbox() or (0, 0, *self.image.size)


@dataclass(frozen=True)
class Augment:
    """How much to vary. Every variant draws each amount evenly from its range; 0, or (1, 1), leaves it alone.

    rotation: degrees, either way; upright: the share of variants that aren't rotated at all; shear: degrees, as Keras'
    ``shear_range`` is; zoom: 0.2 means 0.8 to 1.2, for width and height by themselves; flip: mirror one in two;
    brightness: factors; shift: in LR pixels, either way.

    What follows is for the small image alone and makes the task harder than plain shrinking: blur: the largest sigma of
    a Gaussian, in LR pixels; gain: factors of brightness; noise: the largest standard deviation, of 255; clean: the
    share of variants that are spared all three.
    """

    rotation: float = 40.0
    shear: float = 0.2
    zoom: float = 0.2
    flip: bool = False
    brightness: tuple[float, float] = (0.5, 1.5)
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

    def turn(self, rng: np.random.Generator) -> float:
        """By how many degrees a variant is rotated."""
        if self.upright and rng.random() < self.upright:
            return 0.0
        return rng.uniform(-self.rotation, self.rotation)

    def vary(self, source: Source, size: int, lr_size: int, rng: np.random.Generator) -> Image.Image:
        """A variant of the source, to be shrunk to LR and HR.

        It is drawn on ``size`` x ``size`` pixels, a few times HR's, in one go; with nothing to turn or to move, the
        image stays as large as it is. ``lr_size``: the side of LR.
        """
        source_size = np.array(source.image.size)
        pixel = source_size / lr_size  # an LR pixel, in pixels of the source
        turn = np.radians(self.turn(rng))
        slant = np.radians(rng.uniform(-self.shear, self.shear))
        stretch = rng.uniform(1 - self.zoom, 1 + self.zoom, 2)
        mirror = -1 if self.flip and rng.random() < 0.5 else 1
        shift = rng.uniform(-self.shift, self.shift, 2) * pixel
        brightness = rng.uniform(*self.brightness)

        rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        shear = np.array([[1, -np.sin(slant)], [0, np.cos(slant)]])
        forward = rotate @ shear @ np.diag(stretch * (mirror, 1))

        image = source.image
        if shift.any() or not np.allclose(forward, np.eye(2)):
            # Shrink it if a corner of the content would otherwise come nearer to the edge than one LR pixel.
            centre = source_size / 2
            left, upper, right, lower = source.box
            corners = np.array([(left, upper), (left, lower), (right, upper), (right, lower)]) - centre
            reach = np.abs(corners @ forward.T).max(axis=0)
            room = centre - pixel - np.abs(shift)
            forward = forward * np.minimum(1, room / reach).min()

            back = np.linalg.inv(forward)  # Pillow asks where in the source a pixel comes from
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
        """Shrink a variant to (lr_size, lr_size), uint8, by area, with blur before it and gain and noise after it."""
        if self.clean and rng.random() < self.clean:
            return area_average(image, lr_size)
        sigma = rng.uniform(0, self.blur)
        if sigma:  # at four times the size, fine enough for a blur of a fraction of an LR pixel
            image = Image.fromarray(area_average(image, 4 * lr_size))
            image = image.filter(ImageFilter.GaussianBlur(4 * sigma))
        small = area_average(image, lr_size)
        gain, noise = rng.uniform(*self.gain), rng.uniform(0, self.noise)
        if gain == 1 and not noise:
            return small
        noisy = small * gain + noise * rng.standard_normal(small.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


# What a camera does to small codes: the four tracks of benchmarks/qr and what lies between them.
HARD = Augment(
    rotation=40, upright=0.3, shear=0, zoom=0, brightness=(1, 1), shift=0.5, blur=0.7, gain=(0.7, 1), noise=6, clean=0.5
)
