"""Find VGG19's ImageNet weights: at a given path, in ``weights/`` or in the user's cache; else download them."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.request
from pathlib import Path
from urllib.error import URLError

from tinysrgan.core.atomic_write import write_whole
from tinysrgan.core.cli import progress
from tinysrgan.core.paths import WEIGHTS
from tinysrgan.formats.keras.weights import WeightsError, load_vgg19
from tinysrgan.models import VGG19

# Keras' own file. What it is and whose: weights/README.md.
NAME = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{NAME}"
SIZE = 80_134_624
MD5 = "253f8cb515780f3b799900260a226db6"


class DownloadError(WeightsError):
    """The weights are not on this machine and can't be downloaded; training can go on without them."""


def vgg19_or_reason(cut: str, path: Path | None = None) -> tuple[VGG19 | None, str]:
    """VGG19 up to layer ``cut``; or None and one sentence that says why there are no weights.

    Raises WeightsError if a file is found that can't be used.
    """
    try:
        return load_vgg19(find_vgg19(path), cut), ""
    except DownloadError as error:
        return None, str(error)


def find_vgg19(path: Path | None = None) -> Path:
    """``path`` if given; else Keras' file, or any ``vgg19*.h5``, in ``weights/`` or in the cache; else a download.

    Raises WeightsError if ``path`` is given and absent, DownloadError if nothing is found and the download fails.
    """
    if path is not None:
        if not path.exists():
            raise WeightsError(
                f"There is no file {path}. VGG19's weights are Keras' {NAME}: give its path, "
                f"or put it into {WEIGHTS}, where it is found without being named."
            )
        return path
    for folder in (WEIGHTS, cache_folder()):
        for found in [folder / NAME, *sorted(folder.glob("vgg19*.h5"))]:
            if found.is_file():
                return found
    download(cache_folder() / NAME)
    return cache_folder() / NAME


def cache_folder() -> Path:
    """The user's folder for downloads: under %LOCALAPPDATA% on Windows, else under $XDG_CACHE_HOME or ~/.cache."""
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache") / "tinysrgan"


def download(target: Path, url: str = URL, size: int = SIZE, md5: str = MD5, timeout: float = 5) -> None:
    """Download a file of known ``size`` in bytes and checksum to ``target``, whole or not at all.

    Raises DownloadError, also if no data arrives for ``timeout`` seconds.
    """
    print(f"Downloading VGG19's weights ({size / 1e6:.0f} MB) to {target}", file=sys.stderr)
    content = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response, progress(size, "B", scaled=True) as advance:
            while len(content) <= size and (block := response.read(1 << 18)):
                content += block
                advance(len(block))
        if len(content) != size:
            raise OSError(f"{len(content)} bytes came instead of {size}")
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise OSError("what came has a wrong checksum")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, memoryview(content))
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"VGG19's weights could not be downloaded ({_reason(error)}). "
            f"Put the file {url} into {WEIGHTS}, or try again."
        ) from error


def _reason(error: Exception) -> str:
    """The system's message, if there is one."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, OSError) else error
    return getattr(cause, "strerror", None) or str(cause)
