"""An endless stream of synthetic QR codes to train on; no code is shown twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tinysrgan.data.augment import HARD, Augment
from tinysrgan.data.camera import Camera
from tinysrgan.data.dataset import BatchSource, rgb
from tinysrgan.data.images import DataError, quantize
from tinysrgan.data.qr_codes import KINDS, LEVELS, VERSIONS, modules, number, payload, straight, turned

SHARES = (0.1, 0.25, 0.4, 0.25)  # of versions 1 to 4
CAMERA_SHARES = (0.1, 0.22, 0.32, 0.24, *6 * [0.02])  # of versions 1 to 10; a camera may come closer to a large code


class SyntheticCodes(BatchSource):
    """Batches of (LR, HR) pairs of QR codes; a ``dataset.BatchSource`` without end.

    One code in ten is a four-digit number at level M, as in the article's public set. The others have a payload of any
    kind at any level. Versions are 1 to 4, with most codes from those that are hard but possible to rescue. A batch
    depends only on the seed and the step.

    ``augment`` rotates and shifts codes, and blurs, darkens and adds noise to LR. With ``camera``, a share of the codes
    (``camera_share``), of versions 1 to 10, is photographed by it instead. Raises DataError if ``augment`` has other
    changes or if the sizes don't fit, UserError without the package qrcode.
    """

    EPOCH = 10_000  # codes; as many as the article's public set has images

    def __init__(
        self,
        hr_size: int = 128,
        scale: int = 4,
        augment: Augment | None = HARD,
        seed: int = 0,
        camera: Camera | None = None,
        camera_share: float = 0.6,
    ):
        if scale < 1 or hr_size % scale:
            raise DataError(f"The side of the large images, {hr_size}, must be a multiple of the scale, {scale}.")
        self.augment = augment or Augment()
        if self.augment != replace(self.augment, shear=0, zoom=0, flip=False, brightness=(1, 1)):
            raise DataError(
                "Fresh QR codes are turned, shifted and degraded, nothing else: take --augment hard without --flip."
            )
        modules("", 1, "L")  # raises UserError without qrcode, now rather than in a thread
        self.camera, self.camera_share = camera, camera_share
        self.hr_size, self.scale, self.lr_size, self.seed = hr_size, scale, hr_size // scale, seed
        self.skipped: dict[Path, str] = {}  # always empty: there are no files

    def __len__(self) -> int:
        return self.EPOCH

    def code(self, rng: np.random.Generator, shares: Sequence[float] = SHARES) -> tuple[str, np.ndarray]:
        """A random text that is not reserved for the benchmark, and its modules; ``shares``: of versions 1, 2, ..."""
        version = 1 + int(rng.choice(len(shares), p=shares))
        if version <= VERSIONS[-1] and rng.random() < 0.1:
            text, level = number(rng), "M"
        else:
            level, kind = str(rng.choice(list(LEVELS))), str(rng.choice(KINDS))
            text = payload(rng, version, level, kind)
        # A random mask: finding the best of the 8 takes 8 times as long, and readers accept any.
        return text, modules(text, version, level, mask=int(rng.integers(8)))

    def pair(self, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of a code, uint8 (lr_size, lr_size) and (hr_size, hr_size); ``draw`` seeds it."""
        rng = np.random.default_rng([self.seed, 3, draw])
        if self.camera and rng.random() < self.camera_share:
            _, symbol = self.code(rng, CAMERA_SHARES)
            return self.camera.photograph(symbol, self.lr_size, self.scale, rng)
        _, symbol = self.code(rng)
        angle = self.augment.angle(rng)
        shift = self.scale * rng.uniform(-self.augment.shift, self.augment.shift, 2)
        if angle:
            hr = turned(symbol, self.hr_size, angle, shift).reduce(4)
        else:
            hr = Image.fromarray(quantize(straight(symbol, self.hr_size, shift)))
        return self.augment.degrade(hr, self.lr_size, rng), np.asarray(hr)

    def pair_at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        lr, hr = self.pair(position)
        return rgb(lr), rgb(hr)
