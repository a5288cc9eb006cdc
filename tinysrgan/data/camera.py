"""Photographs of QR codes: random effects of printing, a camera and a file format.

Each draw starts from a flat plane that shows the code. The result is two images with the same geometry: LR is what a
camera would store, HR is the code alone, pure black on white (white on black for an inverted code). The stages, in
order:

    printed    ink spreads or shrinks; modules are squares, rounded or dots; a logo may cover the middle
    pose       quarter turns, rotation, tilt with perspective, gentle curvature, any place in the frame
    scene      grey levels of ink and paper, the width of the quiet zone, clutter around it, inverted codes
    optics     defocus and motion blur
    sensor     pixels, uneven light, sharpening with halos, noise, 8 bits, JPEG
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageFilter

from tinysrgan.data.images import quantize

MODULE = 12  # pixels of the plane per module, in both directions
FINE = 8  # samples per LR pixel, in both directions
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Camera:
    """The range of each effect; amounts are uniform in their range unless stated otherwise.

    Lengths are in modules of the code or in LR pixels, grey levels from 0 to 255, angles in degrees. A share is the
    probability that a photograph has the effect at all.
    """

    # printed
    ink: tuple[float, float] = (-0.2, 0.25)  # modules by which ink spreads at each edge
    ink_share: float = 0.7
    rounding: tuple[float, float] = (0.1, 0.25)  # sigma, in modules, of the blur that rounds the corners of spread ink
    dots: tuple[float, float] = (0.38, 0.5)  # radius, in modules
    dots_share: float = 0.04
    logo: tuple[float, float] = (0.06, 0.11)  # half its side, as a part of the code's side
    logo_share: float = 0.03
    # pose
    pitch: tuple[float, float] = (0.7, 1.6)  # LR pixels per module, uniform in its logarithm
    large_pitch: tuple[float, float] = (1.6, 8.0)
    large_share: float = 0.12
    off_centre: float = 1.0  # range of the code's position: at 1 it stays in the frame or, if larger, fills it
    rotation: tuple[float, float] = (-12, 12)
    wide_rotation: tuple[float, float] = (-45, 45)
    wide_share: float = 0.4
    quarter_turn_share: float = 0.35
    tilt: tuple[float, float] = (0, 40)
    tilt_share: float = 0.5
    distance: float = 3.0  # of the camera, in sides of the code
    bend: tuple[float, float] = (-1.2, 1.2)  # modules by which curvature moves the code's edge relative to its middle
    bend_share: float = 0.25
    # scene
    clean_share: float = 0.25  # ink is 0,
    clean_white: tuple[float, float] = (0.7, 1)  # and paper is this fraction of 255
    black: tuple[float, float] = (0, 120)
    contrast: float = 55  # paper is at least this much brighter than ink,
    white: float = 255  # and at most this bright
    inverted_share: float = 0.1
    quiet: tuple[float, float] = (1, 4)  # modules
    no_quiet_share: float = 0.06
    around_share: float = 0.6  # clutter begins where the quiet zone ends
    shades: tuple[float, float] = (0, 60)  # standard deviation of smooth clutter
    bars: tuple[int, int] = (1, 11)  # rectangles in the clutter, like print or edges
    bars_share: float = 0.5
    # optics
    blur: tuple[float, float] = (0, 0.55)  # sigma, in LR pixels, or in modules if these are larger
    blur_share: float = 0.8
    gaussian_share: float = 0.7  # of the blurs; the others are boxes
    motion: tuple[float, float] = (0, 1.3)  # in LR pixels, or in modules if these are larger
    motion_share: float = 0.15
    # sensor
    resampled_share: float = 0.5  # of photographs that software has shrunk; the other photographs' pixels are averages
    falloff: tuple[float, float] = (0, 0.5)  # the part of the light that is missing at the dark side of the frame
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

        ``scale`` must divide FINE. Only part of a code that is larger than the frame is visible.
        """
        count = len(symbol)
        pitch = float(np.exp(rng.uniform(*np.log(self.large_pitch if rng.random() < self.large_share else self.pitch))))
        printed = self.printed(symbol, rng)
        u, v = self.pose(count, pitch, lr_size, rng)
        inside = (u >= 0) & (u < count) & (v >= 0) & (v < count)
        last = len(printed) - 1
        at = np.clip((v * MODULE).astype(int), 0, last), np.clip((u * MODULE).astype(int), 0, last)
        hr = 255 * (1 - _block_means(inside * _plane(symbol)[at], lr_size * scale))
        ink, paper = self.levels(rng)
        scene = self.scene(paper + (ink - paper) * inside * printed[at], u, v, count, rng)
        lr = self.sensor(self.pixels(self.optics(scene, pitch, rng), lr_size, rng), rng)
        return lr, quantize(hr if ink < paper else 255 - hr)

    def printed(self, symbol: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The code in ink, from 0 (paper) to 1, float32 (MODULE n, MODULE n)."""
        plane, middle = _plane(symbol), len(symbol) * MODULE // 2
        if rng.random() < self.dots_share:
            offset = (np.arange(MODULE) + 0.5) / MODULE - 0.5
            dot = np.hypot(offset[:, None], offset) < rng.uniform(*self.dots)
            plane = np.where(_finders(len(symbol)), plane, np.kron(symbol, dot))
        if rng.random() < self.ink_share:
            # Blur, then a threshold. At a distance d outside a straight edge the blurred level is cdf(-d / sigma), so
            # this threshold moves the edge by d.
            spread, sigma = rng.uniform(*self.ink), rng.uniform(*self.rounding)
            level = 255 * NormalDist().cdf(-spread / sigma)
            margin = 2 * MODULE
            wet = _filter(255 * np.pad(plane, margin), ImageFilter.GaussianBlur(sigma * MODULE))
            plane = wet[margin:-margin, margin:-margin] > np.clip(level, 1, 254)
        plane = plane.astype(np.float32)
        if rng.random() < self.logo_share:
            half = int(rng.uniform(*self.logo) * len(plane))
            plane[middle - half : middle + half, middle - half : middle + half] = rng.random()
        return plane

    def pose(self, count: int, pitch: float, lr_size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """For each sample of the frame, the point (u, v) of the code that it shows: two (FINE lr_size, FINE lr_size).

        u goes right, v down, both in modules from the code's upper left corner; ``count`` is the code's side.
        """
        angle = rng.uniform(*(self.wide_rotation if rng.random() < self.wide_share else self.rotation))
        if rng.random() < self.quarter_turn_share:
            angle += 90 * rng.integers(1, 4)
        tilt = np.radians(rng.uniform(*self.tilt) if rng.random() < self.tilt_share else 0)
        axis = rng.uniform(0, 2 * np.pi)
        # Range of the centre: the distance between the edges of the code and of the frame.
        reach = self.off_centre * abs(lr_size - (count + 2) * pitch) / 2
        centre = lr_size / 2 + rng.uniform(-1, 1, 2) * (reach + 1)

        grid = (np.arange(lr_size * FINE, dtype=np.float32) + 0.5) / FINE
        x, y = grid[None, :] - float(centre[0]), grid[:, None] - float(centre[1])
        x, y = _rotate(x, y, axis)  # the plane is tilted about the y axis
        # The inverse of a pinhole projection. Python floats keep the arrays in float32.
        depth = float(np.cos(tilt)) - float(np.sin(tilt) / (self.distance * count * pitch)) * x
        depth = float(pitch) * np.maximum(depth, 0.2)
        x, y = _rotate(x / depth, float(np.cos(tilt)) * y / depth, np.radians(angle) - axis)
        if rng.random() < self.bend_share:
            bend = float(rng.uniform(*self.bend)) / (count / 2) ** 2
            x, y = (x, y + bend * x * x) if rng.random() < 0.5 else (x + bend * y * y, y)
        return x + count / 2, y + count / 2

    def levels(self, rng: np.random.Generator) -> tuple[float, float]:
        """Grey levels of ink and paper; ink is the brighter one in an inverted code."""
        if rng.random() < self.clean_share:
            black, white = 0.0, 255 * float(rng.uniform(*self.clean_white))
        else:
            black = float(rng.uniform(*self.black))
            white = float(rng.uniform(black + self.contrast, self.white))
        return (white, black) if rng.random() < self.inverted_share else (black, white)

    def scene(
        self, printed: np.ndarray, u: np.ndarray, v: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Grey levels of the samples: the printed code with its paper, and the clutter beyond the quiet zone."""
        if rng.random() >= self.around_share:
            return printed
        quiet = 0.0 if rng.random() < self.no_quiet_share else rng.uniform(*self.quiet)
        outside = (np.minimum(u, v) < -quiet) | (np.maximum(u, v) > count + quiet)
        return np.where(outside, self.clutter(len(printed), rng), printed)

    def clutter(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Grey levels of what surrounds a code, (size, size): smooth shades, and bars in a share of the draws."""
        shades = Image.fromarray((rng.uniform(*self.shades) * rng.standard_normal((6, 6))).astype(np.float32))
        clutter = float(rng.uniform(0, 255)) + np.asarray(shades.resize((size, size), Image.Resampling.BICUBIC))
        if rng.random() < self.bars_share:
            for _ in range(rng.integers(*self.bars, endpoint=True)):
                top, left = rng.integers(size, size=2)
                height, width = (np.exp(rng.uniform(np.log(4), np.log(size / 2), 2))).astype(int)
                clutter[top : top + height, left : left + width] = rng.uniform(0, 255)
        return np.clip(clutter, 0, 255)

    def optics(self, scene: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
        """The samples after defocus and motion blur."""
        unit = FINE * max(pitch, 1.0)
        sigma = rng.uniform(*self.blur) * unit
        if rng.random() < self.blur_share and sigma > 0.3:
            gaussian = rng.random() < self.gaussian_share
            # A box of this radius has the same variance.
            scene = _filter(scene, ImageFilter.GaussianBlur(sigma) if gaussian else ImageFilter.BoxBlur(1.7 * sigma))
        if rng.random() < self.motion_share:
            length, way = rng.uniform(*self.motion) * unit, rng.uniform(0, np.pi)
            steps = np.linspace(-length / 2, length / 2, 7)
            shifted = [np.roll(scene, (round(s * np.sin(way)), round(s * np.cos(way))), (0, 1)) for s in steps]
            scene = np.stack(shifted).mean(axis=0)
        return scene

    def pixels(self, scene: np.ndarray, lr_size: int, rng: np.random.Generator) -> np.ndarray:
        """Real grey levels (lr_size, lr_size): averages over a pixel, or what a filter for shrinking makes."""
        if rng.random() >= self.resampled_share:
            return _block_means(scene, lr_size)
        fine = Image.fromarray(scene.astype(np.float32))
        return np.asarray(fine.resize((lr_size, lr_size), FILTERS[rng.integers(len(FILTERS))]))

    def sensor(self, lr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Real grey levels (lr_size, lr_size) as uint8, with uneven light, sharpening, noise and JPEG."""
        if rng.random() < self.falloff_share:
            way, across = rng.uniform(0, 2 * np.pi), np.linspace(-1, 1, len(lr))
            ramp = np.clip(np.cos(way) * across[None, :] + np.sin(way) * across[:, None], -1, 1)
            lr = lr * (1 - rng.uniform(*self.falloff) * (0.5 + 0.5 * ramp))
        if rng.random() < self.sharpening_share:
            lr = lr + rng.uniform(*self.sharpening) * (lr - _smooth(lr))
        lr = quantize(lr + rng.uniform(*self.noise) * rng.standard_normal(lr.shape))
        if rng.random() < self.jpeg_share:
            # The frame is a crop of a larger file, so JPEG's blocks of 8 pixels start anywhere in it.
            down, right = rng.integers(8, size=2)
            file = io.BytesIO()
            framed = Image.fromarray(np.pad(lr, ((down, 0), (right, 0)), "edge"))
            framed.save(file, "JPEG", quality=int(rng.integers(*self.jpeg, endpoint=True)))
            lr = np.asarray(Image.open(file))[down:, right:]
        return lr


def _plane(symbol: np.ndarray) -> np.ndarray:
    """The modules as squares, uint8 (MODULE n, MODULE n)."""
    return np.kron(symbol, np.ones((MODULE, MODULE), np.uint8))


def _rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in axes that are turned by ``angle``, in radians."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return c * x + s * y, c * y - s * x


def _filter(image: np.ndarray, kind: ImageFilter.MultibandFilter) -> np.ndarray:
    return np.asarray(Image.fromarray(image.astype(np.uint8)).filter(kind))


def _block_means(samples: np.ndarray, size: int) -> np.ndarray:
    """Means over square blocks: (block size, block size) to float32 (size, size)."""
    block = len(samples) // size
    return samples.reshape(size, block, size, block).mean(axis=(1, 3), dtype=np.float32)


def _finders(count: int) -> np.ndarray:
    """A mask of the plane's pixels that belong to the three finder patterns."""
    low, high = np.arange(count) < 7, np.arange(count) >= count - 7
    corners = np.outer(low, low) | np.outer(low, high) | np.outer(high, low)
    return np.kron(corners, np.ones((MODULE, MODULE), bool))


def _smooth(image: np.ndarray) -> np.ndarray:
    """Blur with the kernel (1 2 1) / 4 in both directions; edges are repeated."""
    padded = np.pad(image, 1, "edge")
    down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 16
