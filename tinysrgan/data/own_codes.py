"""A folder's QR codes as a camera would show them: their modules are read, and photographed anew for every visit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tinysrgan.data.augment import Augment
from tinysrgan.data.camera import Camera
from tinysrgan.data.dataset import ImagePairs, rgb
from tinysrgan.data.images import DataError, decode

# Of a grey image: a code's modules, 1 is dark; None if there is none.
Reader = Callable[[np.ndarray], np.ndarray | None]


class PhotographedCodes(ImagePairs):
    """As ``ImagePairs``, but a camera photographs a share of the images; a ``BatchSource``.

    An image without a code that ``modules_of`` reads is left out, as an unreadable file is.
    """

    def __init__(
        self,
        paths: list[Path],
        hr_size: int,
        scale: int,
        augment: Augment | None,
        seed: int,
        camera: Camera,
        modules_of: Reader,
        camera_share: float = 0.6,
    ):
        super().__init__(paths, hr_size, scale, augment, seed)
        self.camera, self.modules_of, self.camera_share = camera, modules_of, camera_share
        self._modules = cache(self._read_modules)

    def draw(self, index: int, position: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of one visit; ``position`` seeds it. Raises DataError if there is no code to be read."""
        modules = self._modules(index)
        rng = np.random.default_rng([self.seed, 5, position])
        if rng.random() >= self.camera_share:
            return self.pair(index, position)
        lr, hr = self.camera.photograph(modules, self.lr_size, self.scale, rng)
        return rgb(lr), rgb(hr)

    def _read_modules(self, index: int) -> np.ndarray:
        path = self.paths[index]
        modules = self.modules_of(np.asarray(decode(path).convert("L")))
        if modules is None:
            raise DataError(f"{path}: --augment camera photographs QR codes, and no reader reads one in it")
        return modules
