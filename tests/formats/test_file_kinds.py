"""Files that are not HDF5: one sentence says what the file is and how to make an HDF5 file from it."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tinysrgan.core.errors import UserError
from tinysrgan.formats.checkpoint import load_generator, read_state
from tinysrgan.formats.generator_files import read_generator
from tinysrgan.formats.keras.nets import load_keras_discriminator, load_keras_generator
from tinysrgan.formats.keras.weights import load_vgg19

KERAS = Path(__file__).parent / "keras_files"
OPENINGS = [read_generator, load_generator, read_state, load_vgg19, load_keras_generator, load_keras_discriminator]


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return content.getvalue()


def npz() -> bytes:
    content = io.BytesIO()
    np.savez(content, w=np.zeros(3))
    return content.getvalue()


def npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
FILES = {
    "empty": (b"", "it is empty", "download"),
    "Git LFS": (POINTER, "Git LFS", "`git lfs pull`"),
    "a web page": (b"\n<!DOCTYPE html><html><title>404</title>", "web page", "download the file itself"),
    "a web page in capitals": (b"\xef\xbb\xbf<HTML>", "web page", "download the file itself"),
    "an answer in XML": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML", "download the file itself"),
    "an answer in JSON": (b'{"error": "not found"}', "JSON", "model.save"),
    "layers alone": (b'{"class_name": "Functional"}', "JSON", "holds no weights"),
    "PyTorch's": (archive("net/data.pkl", "net/data/0", "net/version"), "PyTorch", "examples/pth_to_safetensors.py"),
    "older PyTorch's": (pickle.dumps({"w": 1}, protocol=2), "PyTorch", "examples/pth_to_safetensors.py"),
    "a pickle": (pickle.dumps({"w": 1}), "pickle", "examples/pth_to_safetensors.py"),
    "NumPy's": (npz(), ".npz", "Keras model of the same layers"),
    "NumPy's array": (npy(), ".npy", "Keras model of the same layers"),
    "safetensors": (safetensors(), "safetensors", "Keras model of the same layers"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x8f", "ONNX", "Keras model of the same layers"),
    "TensorFlow's graph": (b"\x08\x01\x12\x80\x02\x0a", "SavedModel", "model.save"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite", "Keras model"),
    "MATLAB's": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "MATLAB", "Keras model of the same layers"),
    "a ZIP archive": (archive("model.h5", "notes.txt"), "ZIP", "unpack"),
    "a cut ZIP archive": (archive("config.json", "model.weights.h5")[:60], "cut short", "download"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(50), "an archive", "unpack"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture", "weights"),
    "zeros": (bytes(5000), "zeros", "download"),
    "text": (b"hello\n", "text", "download"),
    "anything": (b"\xfe\x01" * 900, "unknown", ".h5 file that tinysrgan or Keras wrote"),
}


def refusal(path: Path, opening=load_keras_generator) -> str:
    with pytest.raises(UserError) as caught:
        opening(path)
    said = str(caught.value)
    assert str(path) in said and said.endswith(".") and "\n" not in said, said
    return said


@pytest.mark.parametrize("name", FILES)
def test_what_it_is_and_the_way_out(tmp_path, name):
    content, what, way_out = FILES[name]
    (tmp_path / "generator.h5").write_bytes(content)
    said = refusal(tmp_path / "generator.h5")
    assert "generator.h5 is not an HDF5 file" in said and what in said and way_out in said


@pytest.mark.parametrize("opening", OPENINGS)
def test_wherever_hdf5_is_opened(tmp_path, opening):
    (tmp_path / "x.h5").write_bytes(POINTER)
    assert "Git LFS" in refusal(tmp_path / "x.h5", opening)
    (tmp_path / "saved_model.pb").touch()
    assert "SavedModel" in refusal(tmp_path, opening)


def test_folders(tmp_path):
    assert refusal(tmp_path).endswith("is a folder; give an HDF5 file in it.")
    for name in ("b.h5", "a.h5"):
        (tmp_path / name).touch()
    assert refusal(tmp_path).endswith("is a folder; give an HDF5 file in it: a.h5, b.h5.")


@pytest.mark.parametrize("length", [22, 40, 70])
def test_a_damaged_archive(tmp_path, length):
    """The end of a ZIP archive lists its contents."""
    (tmp_path / "x.h5").write_bytes(b"PK\x03\x04" + archive("a.npy", "b.npy")[-length:])
    assert "cut short" in refusal(tmp_path / "x.h5")


def test_files_that_pytorch_wrote(tmp_path):
    torch = pytest.importorskip("torch")
    for new in (False, True):
        torch.save({"w": torch.zeros(3)}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        assert "PyTorch" in refusal(tmp_path / "x.pth")
