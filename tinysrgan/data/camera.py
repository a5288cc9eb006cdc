"""Photographs of QR codes: what printing, a camera and a file format do to a code, drawn at random.

A draw starts from a flat plane that shows the code, and ends with two pictures of one geometry: LR, what a camera would
have stored, and HR, the code alone in pure black on white. Stages, in this order:

    print      ink spreads or thins; modules are square, rounded or dots; a logo may cover the middle
    pose       any quarter turn, rotation, tilt with perspective, gentle curvature, any place in the frame
    scene      grey levels of ink and paper, the end of the quiet zone, anything around it, inverted codes
    optics     defocus, motion blur, the average over a pixel
    sensor     uneven light, sharpening with halos, noise, 8 bits, JPEG
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageFilter

from tinysrgan.data.images import quantize

MODULE = 12  # pixels of the plane a module
FINE = 8  # samples across an LR pixel


@dataclass(frozen=True)
class Camera:
    """The ranges of all that varies; each amount is uniform in its range unless stated otherwise.

    Lengths are in modules (of the code) or in LR pixels, grey levels in 0..255, angles in degrees. A share is the
    probability that the draw has the property at all.
    """

    # print
    ink: tuple[float, float] = (-0.2, 0.25)  # modules that an edge of ink moves outwards
    ink_share: float = 0.7
    rounding: tuple[float, float] = (0.1, 0.25)  # sigma, in modules, of the blur that rounds corners
    dots_share: float = 0.04
    logo_share: float = 0.03
    # pose
    pitch: tuple[float, float] = (0.7, 1.6)  # LR pixels a module, uniform in its logarithm
    large_pitch: tuple[float, float] = (1.6, 8.0)
    large_share: float = 0.12
    off_centre: float = 1.0  # how much of the room around a code, or of what a larger one lacks, it may be moved by
    rotation: tuple[float, float] = (-12, 12)
    wide_rotation: tuple[float, float] = (-45, 45)
    wide_share: float = 0.4
    quarter_turn_share: float = 0.35
    tilt: tuple[float, float] = (0, 40)
    tilt_share: float = 0.5
    bend: tuple[float, float] = (-1.2, 1.2)  # modules that the edge of a curved code moves against its middle
    bend_share: float = 0.25
    # scene
    clean_share: float = 0.25  # black ink on bright paper
    black: tuple[float, float] = (0, 120)
    contrast: float = 55  # white is at least so much above black,
    white: float = 255  # and at most this
    quiet: tuple[float, float] = (1, 4)  # modules
    no_quiet_share: float = 0.06
    around_share: float = 0.6
    inverted_share: float = 0.05
    # optics
    blur: tuple[float, float] = (0, 0.55)  # sigma, in LR pixels, or in modules where these are larger
    blur_share: float = 0.8
    motion: tuple[float, float] = (0, 1.3)  # LR pixels
    motion_share: float = 0.15
    # sensor
    falloff: tuple[float, float] = (0, 0.5)  # of the light, from one side of the frame to the other
    falloff_share: float = 0.4
    sharpening: tuple[float, float] = (0, 1.5)  # weight of the unsharp mask
    sharpening_share: float = 0.4
    noise: tuple[float, float] = (0, 8)  # standard deviation, in grey levels
    jpeg: tuple[int, int] = (45, 95)  # quality
    jpeg_share: float = 0.35

    def photograph(
        self, symbol: np.ndarray, lr_size: int, scale: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR, uint8 (lr_size, lr_size) and (scale lr_size, scale lr_size), of a code's modules (1 is dark).

        A code that is larger than the frame shows only in part. ``scale`` divides FINE.
        """
        count = len(symbol)
        pitch = _logarithmic(rng, self.large_pitch if rng.random() < self.large_share else self.pitch)
        plane = np.kron(symbol, np.ones((MODULE, MODULE), np.uint8))
        printed = self._print(symbol, plane, rng)

        u, v = self._pose(count, pitch, lr_size, rng)  # in modules from the code's upper left corner
        inside = (u >= 0) & (u < count) & (v >= 0) & (v < count)
        last = len(plane) - 1
        at = np.clip((v * MODULE).astype(int), 0, last), np.clip((u * MODULE).astype(int), 0, last)
        hr = 255 * (1 - _block_means(inside * plane[at], lr_size * scale))

        scene = self._scene(inside * printed[at], u, v, count, rng)
        lr = _block_means(self._optics(scene, pitch, rng), lr_size)
        return self._sensor(lr, rng), quantize(hr)

    def _print(self, symbol: np.ndarray, plane: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The plane as it comes off the printer: the share of ink, 0 or 1, or a grey level's share in a logo."""
        count, middle = len(symbol), len(plane) // 2
        if rng.random() < self.dots_share:
            offset = (np.arange(MODULE) + 0.5) / MODULE - 0.5
            dot = np.hypot(offset[:, None], offset) < rng.uniform(0.38, 0.5)
            plane = np.where(_finders(count), plane, np.kron(symbol, dot))
        if rng.random() < self.ink_share:
            # At a distance d outside, a blurred straight edge has the level cdf(-d / sigma): a threshold moves it by d.
            spread, sigma = rng.uniform(*self.ink), rng.uniform(*self.rounding)
            level = 255 * NormalDist().cdf(-spread / sigma)
            margin = 2 * MODULE
            wet = _filter(255 * np.pad(plane, margin), ImageFilter.GaussianBlur(sigma * MODULE))
            plane = wet[margin:-margin, margin:-margin] > np.clip(level, 1, 254)
        plane = plane.astype(np.float32)
        if rng.random() < self.logo_share:
            half = int(rng.uniform(0.06, 0.11) * len(plane))
            logo = (slice(middle - half, middle + half),) * 2
            plane[logo] = rng.random()
        return plane

    def _pose(self, count: int, pitch: float, lr_size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The point (u, v) of the code's plane that each sample shows, in modules: two (FINE lr_size, FINE lr_size)."""
        angle = rng.uniform(*(self.wide_rotation if rng.random() < self.wide_share else self.rotation))
        if rng.random() < self.quarter_turn_share:
            angle += 90 * rng.integers(1, 4)
        tilt = np.radians(rng.uniform(*self.tilt) if rng.random() < self.tilt_share else 0)
        axis = rng.uniform(0, 2 * np.pi)
        # The centre leaves the middle as far as the code stays in the frame, or a piece of a larger code fills it.
        reach = self.off_centre * abs(lr_size - (count + 2) * pitch) / 2
        centre = lr_size / 2 + rng.uniform(-1, 1, 2) * (reach + 1)

        grid = (np.arange(lr_size * FINE, dtype=np.float32) + 0.5) / FINE
        x, y = grid[None, :] - float(centre[0]), grid[:, None] - float(centre[1])
        x, y = _rotate(x, y, axis)  # x now is across the axis of the tilt
        # A camera at three times the code's size sees nearer parts larger.
        depth = float(np.cos(tilt)) - float(np.sin(tilt) / (3 * count * pitch)) * x
        depth = float(pitch) * np.maximum(depth, 0.2)
        x, y = _rotate(x / depth, float(np.cos(tilt)) * y / depth, np.radians(angle) - axis)
        if rng.random() < self.bend_share:
            bend = float(rng.uniform(*self.bend)) / (count / 2) ** 2
            x, y = (x, y + bend * x * x) if rng.random() < 0.5 else (x + bend * y * y, y)
        return x + count / 2, y + count / 2

    def _scene(self, ink: np.ndarray, u: np.ndarray, v: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Grey levels of the code, its paper, and what lies beyond the quiet zone."""
        if rng.random() < self.clean_share:
            black, white = 0.0, 255 * float(rng.uniform(0.7, 1))
        else:
            black = float(rng.uniform(*self.black))
            white = float(rng.uniform(black + self.contrast, self.white))
        if rng.random() < self.inverted_share:
            black, white = white, black
        scene = white + (black - white) * ink
        if rng.random() < self.around_share:
            quiet = 0.0 if rng.random() < self.no_quiet_share else rng.uniform(*self.quiet)
            outside = (np.minimum(u, v) < -quiet) | (np.maximum(u, v) > count + quiet)
            scene = np.where(outside, _clutter(len(scene), rng), scene)
        return scene

    def _optics(self, scene: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
        sigma = rng.uniform(*self.blur) * FINE * max(pitch, 1.0)
        if rng.random() < self.blur_share and sigma > 0.3:
            kind = ImageFilter.GaussianBlur(sigma) if rng.random() < 0.7 else ImageFilter.BoxBlur(1.7 * sigma)
            scene = _filter(scene, kind)
        if rng.random() < self.motion_share:
            length, way = rng.uniform(*self.motion) * FINE * max(pitch, 1.0), rng.uniform(0, np.pi)
            steps = np.linspace(-length / 2, length / 2, 7)
            shifted = [np.roll(scene, (round(s * np.sin(way)), round(s * np.cos(way))), (0, 1)) for s in steps]
            scene = np.stack(shifted).mean(axis=0)
        return scene

    def _sensor(self, lr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = len(lr)
        if rng.random() < self.falloff_share:
            way, across = rng.uniform(0, 2 * np.pi), np.linspace(-1, 1, size)
            ramp = np.clip(np.cos(way) * across[None, :] + np.sin(way) * across[:, None], -1, 1)
            lr = lr * (1 - rng.uniform(*self.falloff) * (0.5 + 0.5 * ramp))
        if rng.random() < self.sharpening_share:
            lr = lr + rng.uniform(*self.sharpening) * (lr - _smooth(lr))
        lr = lr + rng.uniform(*self.noise) * rng.standard_normal(lr.shape)
        lr = quantize(lr)
        if rng.random() < self.jpeg_share:
            # JPEG's blocks of 8 pixels begin anywhere in the frame.
            down, right = rng.integers(8, size=2)
            file = io.BytesIO()
            framed = Image.fromarray(np.pad(lr, ((down, 0), (right, 0)), "edge"))
            framed.save(file, "JPEG", quality=int(rng.integers(*self.jpeg, endpoint=True)))
            lr = np.asarray(Image.open(file))[down:, right:]
        return lr


def _logarithmic(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return c * x + s * y, c * y - s * x


def _filter(image: np.ndarray, kind: ImageFilter.MultibandFilter) -> np.ndarray:
    return np.asarray(Image.fromarray(image.astype(np.uint8)).filter(kind))


def _block_means(samples: np.ndarray, size: int) -> np.ndarray:
    """Means over the equal square blocks that make ``size`` rows and columns of the samples."""
    block = len(samples) // size
    return samples.reshape(size, block, size, block).mean(axis=(1, 3), dtype=np.float32)


def _finders(count: int) -> np.ndarray:
    """Whether each pixel of a plane belongs to one of the three finder patterns."""
    low, high = np.arange(count) < 7, np.arange(count) >= count - 7
    corners = np.outer(low, low) | np.outer(low, high) | np.outer(high, low)
    return np.kron(corners, np.ones((MODULE, MODULE), bool))


def _smooth(image: np.ndarray) -> np.ndarray:
    """The image blurred by the binomial kernel (1 2 1) / 4 both ways; edges are repeated."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], "edge").swapaxes(0, axis)
        image = ((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4).swapaxes(0, axis)
    return image


def _clutter(size: int, rng: np.random.Generator) -> np.ndarray:
    """What may surround a code: smooth shades, and in one of two draws some bars like print or edges."""
    shades = Image.fromarray((rng.uniform(0, 60) * rng.standard_normal((6, 6))).astype(np.float32))
    clutter = float(rng.uniform(0, 255)) + np.asarray(shades.resize((size, size), Image.Resampling.BICUBIC))
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 12)):
            top, left = rng.integers(size, size=2)
            height, width = (np.exp(rng.uniform(np.log(4), np.log(size / 2), 2))).astype(int)
            clutter[top : top + height, left : left + width] = rng.uniform(0, 255)
    return np.clip(clutter, 0, 255)
