"""Identify a file that is not HDF5 by its first bytes, and say how to get an HDF5 file from it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

RELOAD = "load it in Keras and write it by model.save('model.h5')"
TORCH = "convert it by examples/pth_to_safetensors.py, if it is an SRGAN's generator"
CONVERT = "put its arrays into a Keras model of the same layers and write that by model.save('model.h5')"
AGAIN = "download the file itself again"
UNPACK = "unpack it and give the .h5 file in it"
CUT_ZIP = "a ZIP archive that is cut short, such as .keras, .pth or .npz", AGAIN

SIGNATURES: list[tuple[bytes, str, str]] = [
    (rb"version https://git-lfs", "a Git LFS pointer to one", "run `git lfs pull` in its repository"),
    (rb"(\xef\xbb\xbf)?\s*<[!?a-z]", "a web page (HTML) or XML", f"{AGAIN}, not the page that shows it"),
    (rb"\x80[\x02-\x05]", "a Python pickle, such as PyTorch's older .pth", TORCH),
    (rb".{6}\0\0\{\s*\"", "safetensors", CONVERT),
    (rb"\x08[\x03-\x1f][\x12\x1a\x22\x2a\x32\x3a\x42]", "an ONNX model", CONVERT),
    (rb"\x08\x01\x12", "the graph of TensorFlow's SavedModel", f"of its folder: {RELOAD}"),
    (rb"\x93NUMPY", "a NumPy array (.npy)", CONVERT),
    (rb"MATLAB 5\.0 MAT-file", "a MATLAB file", CONVERT),
    (rb".{4}TFL3", "a TensorFlow Lite model", "take the Keras model that it was made from"),
    (rb"PK\x03\x04", *CUT_ZIP),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!|.{257}ustar", "an archive", UNPACK),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*", "a picture", "give the file of the weights"),
    (rb"\x0e\x03\x13\x01", "HDF4", "convert it by h4toh5"),
    (rb"\s*[{\[]", "JSON text", "that may describe layers but holds no weights: write both by model.save('model.h5')"),
    (rb"\0{512}", "zeros, as a broken download leaves them", AGAIN),
    (rb"[\t\n\r -~]+\Z", "text", f"give the file of the weights, or {AGAIN}"),
]


def not_hdf5(path: Path) -> str:
    """One sentence on a folder, or a file that isn't HDF5. Raises OSError if it can't be read."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return f"{path} is a folder, a SavedModel of TensorFlow: {RELOAD}."
        inside = ", ".join(sorted(file.name for file in path.glob("*.h5"))[:5])
        return f"{path} is a folder; give an HDF5 file in it{inside and f': {inside}'}."
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        return f"{path} is not an HDF5 file, it is empty: copy it or {AGAIN}."
    what, way_out = _archive(path) if zipfile.is_zipfile(path) else _by_signature(start)
    return f"{path} is not an HDF5 file but {what}: {way_out}."


def _by_signature(start: bytes) -> tuple[str, str]:
    for signature, what, way_out in SIGNATURES:
        if re.match(signature, start, re.DOTALL | re.IGNORECASE):
            return what, way_out
    return "of a kind unknown here", "give an .h5 file that tinysrgan or Keras wrote"


def _archive(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return CUT_ZIP
    if "model.weights.h5" in names:
        return "a .keras archive", RELOAD
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file", TORCH
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", CONVERT
    return "a ZIP archive", UNPACK
