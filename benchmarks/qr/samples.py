"""The codes of the benchmark: five tracks, versions 1 to 4; every run uses the same codes, all with reserved texts.

article: a four-digit number that is 7 modulo 10, level M, as in the article's public set; straight and clean.
mixed: digits, capitals or addresses that fill 60 to 100 % of the symbol, all levels; straight and clean.
hard: like mixed, but shifted by up to half an LR pixel, blurred (sigma 0.3 to 0.7 LR pixels), darkened (0.7 to 1) and
noisy (0 to 6 of 255).
rot: like mixed, but rotated by up to 40 degrees and shifted by up to half an LR pixel; clean.
camera: like mixed, with all effects of ``tinysrgan.data.camera``, versions 1 to 6; the whole code is in the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinysrgan.data.camera import Camera
from tinysrgan.data.images import quantize
from tinysrgan.data.qr_codes import KINDS, LEVELS, QUIET, modules, payload, straight, turned, zoom

SEED = 7
TRACKS = ("article", "mixed", "hard", "rot", "camera")
VERSIONS = (1, 2, 3, 4)
CAMERA_VERSIONS = (1, 2, 3, 4, 5, 6)
HR, LR = 128, 32  # pixels on a side
SCALE = HR // LR
# A camera without effects: straight, black on white, sharp, 1.1 LR pixels per module.
STILL = Camera(
    ink_share=0,
    dots_share=0,
    logo_share=0,
    pitch=(1.1, 1.1),
    large_share=0,
    off_centre=0.3,
    rotation=(0, 0),
    wide_share=0,
    quarter_turn_share=0,
    tilt_share=0,
    bend_share=0,
    clean_share=0,
    black=(0, 0),
    contrast=255,
    around_share=0,
    inverted_share=0,
    resampled_share=0,
    blur_share=0,
    motion_share=0,
    falloff_share=0,
    sharpening_share=0,
    noise=(0, 0),
    jpeg_share=0,
)


@dataclass(frozen=True)
class Sample:
    """A code with its images.

    lr, hr: uint8 (32, 32) and (128, 128), larger on the track camera. modules: (n, n), 1 is dark. centres: (2, n, n),
    row and column of each module's centre in HR pixels; None on the track camera.
    """

    text: str
    version: int
    modules: np.ndarray
    lr: np.ndarray
    hr: np.ndarray
    centres: np.ndarray | None


def versions(track: str) -> tuple[int, ...]:
    """The versions of a track."""
    return CAMERA_VERSIONS if track == "camera" else VERSIONS


def samples(track: str, count: int) -> list[Sample]:
    """The first ``count`` codes (at most 900) of each version in a track."""
    return [_sample(track, version, i) for version in versions(track) for i in range(count)]


def _sample(track: str, version: int, i: int) -> Sample:
    rng = np.random.default_rng([SEED, TRACKS.index(track), version, i])
    if track == "camera":
        # A code bent by more than 0.6 modules is unreadable even in HR.
        return photographed(replace(Camera(), large_share=0, off_centre=0.3, bend=(-0.6, 0.6)), version, i, rng)
    if track == "article":
        texts = np.random.default_rng([SEED, version]).permutation(np.arange(1007, 10000, 10))
        text, level = str(texts[i]), "M"
    else:
        level = list(LEVELS)[i % 4]
        text = payload(rng, version, level, KINDS[i // 4 % 3], reserved=True)
    symbol = modules(text, version, level)
    angle, shift = 0.0, np.zeros(2)  # LR pixels, down and right
    if track == "rot":
        angle, shift = rng.uniform(-40, 40), rng.uniform(-0.5, 0.5, 2)
        fine = turned(symbol, HR, angle, SCALE * shift)
        hr, lr = np.asarray(fine.reduce(4)), np.asarray(fine.reduce(4 * SCALE))
    else:
        sigma, gain, noise = 0.0, 1.0, 0.0
        if track == "hard":
            sigma, gain, noise = rng.uniform(0.3, 0.7), rng.uniform(0.7, 1), rng.uniform(0, 6)
            shift = rng.uniform(-0.5, 0.5, 2)
        exact = straight(symbol, HR, SCALE * shift)
        shrink = np.kron(np.eye(LR), np.full(SCALE, 1 / SCALE)) @ gaussian(HR, SCALE * sigma)
        lr = gain * (shrink @ exact @ shrink.T) + noise * rng.standard_normal((LR, LR))
        hr, lr = quantize(exact), quantize(lr)
    return Sample(text, version, symbol, lr, hr, centres(len(symbol), angle, SCALE * shift))


def photographed(camera: Camera, version: int, i: int, rng: np.random.Generator) -> Sample:
    """Photograph code ``i`` of a version; the frame is large enough for any rotation."""
    level = list(LEVELS)[i % 4]
    text = payload(rng, version, level, KINDS[i // 4 % 3], reserved=True)
    symbol = modules(text, version, level)
    pitch = float(np.exp(rng.uniform(*np.log(camera.pitch))))
    frame = int(np.ceil(1.45 * (len(symbol) + 8) * pitch))
    lr, hr = replace(camera, pitch=(pitch, pitch)).photograph(symbol, frame, SCALE, rng)
    return Sample(text, version, symbol, lr, hr, None)


def gaussian(size: int, sigma: float) -> np.ndarray:
    """A Gaussian blur of a row of pixels as a matrix, (size, size), normalised over the pixels of the row."""
    if sigma == 0:
        return np.eye(size)
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    return weights / weights.sum(axis=1, keepdims=True)


def centres(count: int, angle: float, shift: np.ndarray) -> np.ndarray:
    """Row and column of each module's centre, (2, count, count), in HR pixels; pixel centres are integers.

    angle: degrees clockwise; shift: (down, right) in HR pixels.
    """
    turn = np.radians(angle)
    module = HR / (count + 2 * QUIET) * zoom(count, angle)  # its side in pixels
    offset = (np.arange(count) + 0.5 - count / 2) * module
    down, right = np.meshgrid(offset, offset, indexing="ij")
    turned_down = np.cos(turn) * down + np.sin(turn) * right
    turned_right = np.cos(turn) * right - np.sin(turn) * down
    return np.stack([turned_down, turned_right]) + (HR - 1) / 2 + shift[:, None, None]


def data_modules(version: int) -> np.ndarray:
    """A mask (n, n) of the modules that differ between codes: not finders, timing, alignment, or the dark module."""
    count = 17 + 4 * version
    free = np.ones((count, count), bool)
    free[:8, :8] = free[:8, -8:] = free[-8:, :8] = False
    free[6, :] = free[:, 6] = free[count - 8, 8] = False
    if version > 1:
        free[count - 9 : count - 4, count - 9 : count - 4] = False
    return free
