"""The search for VGG19's weights, their download, and the outputs of the real weights."""

import hashlib
import http.server
import os
import socket
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_keras_weights import SPELLINGS, check, random_weights, write

from tinysrgan.formats import vgg19_weights
from tinysrgan.formats.keras.weights import WeightsError, keras_layers, load_vgg19
from tinysrgan.formats.vgg19_weights import NAME, DownloadError, cache_folder, download, find_vgg19, vgg19_or_reason

REAL = Path(__file__).parents[3] / "shared" / "data" / "vgg19" / "vgg19_block1_to_block3_imagenet.h5"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="VGG19's real weights are not on this machine")


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """Search only under tmp_path and block the network: the proxy is an address that refuses connections."""
    monkeypatch.setattr(vgg19_weights, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path / "cache"))
    with socket.socket() as deaf:  # bound, but not listening
        deaf.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield address


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


# ---------------------------------------------------------------- the search


def test_order_of_places(tmp_path):
    elsewhere = touch(tmp_path / "elsewhere" / "any_name.h5")
    with pytest.raises(DownloadError):
        find_vgg19()
    cached = touch(tmp_path / "cache" / "tinysrgan" / NAME)
    assert find_vgg19() == cached
    touch(tmp_path / "weights" / "generator.h5")
    touch(tmp_path / "weights" / "vgg16.h5")
    assert find_vgg19() == cached
    cut = touch(tmp_path / "weights" / "vgg19_cut.h5")
    assert find_vgg19() == cut
    full = touch(tmp_path / "weights" / NAME)
    assert find_vgg19() == full
    assert find_vgg19(elsewhere) == elsewhere


def test_a_path_given_and_absent_is_an_error_that_says_where_to_put_the_file(tmp_path):
    touch(tmp_path / "weights" / NAME)
    with pytest.raises(WeightsError) as error:
        find_vgg19(tmp_path / "absent.h5")
    assert not isinstance(error.value, DownloadError)
    for words in (str(tmp_path / "absent.h5"), NAME, str(tmp_path / "weights")):
        assert words in str(error.value)
    with pytest.raises(WeightsError, match="no file"):
        vgg19_or_reason("block3_conv4", tmp_path / "absent.h5")


@pytest.mark.skipif(os.name == "nt", reason="Windows has its own variable")
def test_cache_is_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tinysrgan"


def test_offline_and_nothing_found_gives_the_reason():
    net, reason = vgg19_or_reason("block3_conv4")
    assert net is None
    assert "could not be downloaded" in reason and "refused" in reason and str(vgg19_weights.WEIGHTS) in reason
    assert "\n" not in reason


def test_found_and_loaded(tmp_path):
    weights = random_weights()
    (tmp_path / "weights").mkdir()
    write(tmp_path / "weights" / "vgg19_small.h5", SPELLINGS[0], weights)
    net, reason = vgg19_or_reason("block2_conv1")
    check(net, weights)
    assert reason == ""


def test_found_and_unfit_is_an_error(tmp_path):
    """The error does not turn VGG19 off, because the user put the file there to be used."""
    (tmp_path / "weights").mkdir()
    write(tmp_path / "weights" / "vgg19_small.h5", SPELLINGS[0], random_weights())
    with pytest.raises(WeightsError, match="serves block2_conv1") as error:
        vgg19_or_reason("block5_conv4")
    assert not isinstance(error.value, DownloadError)


# ---------------------------------------------------------------- the download

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Start a server: /good sends the file, /cut closes halfway, /silent sends nothing, other paths give 404."""
    released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/silent":
                released.wait(20)
                return
            if self.path not in ("/good", "/cut"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if self.path == "/good" else CONTENT[: len(CONTENT) // 2])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        released.set()
        server.shutdown()
        thread.join()


def test_download(server, tmp_path, capsys):
    target = tmp_path / "cache" / "deep" / "file.h5"
    download(target, f"{server}/good", len(CONTENT), MD5)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["file.h5"]
    assert str(target) in capsys.readouterr().err


@pytest.mark.parametrize(
    "page, size, md5, words",
    [
        ("good", len(CONTENT) + 1, MD5, f"{len(CONTENT)} bytes came instead of {len(CONTENT) + 1}"),
        ("good", len(CONTENT) - 1, MD5, f"bytes came instead of {len(CONTENT) - 1}"),
        ("good", 1000, MD5, "262144 bytes came instead of 1000"),  # the download stops soon after the expected size
        ("good", len(CONTENT), "0" * 32, "wrong checksum"),
        ("cut", len(CONTENT), MD5, ""),
        ("absent", len(CONTENT), MD5, "404"),
        ("silent", len(CONTENT), MD5, "timed out"),
    ],
)
def test_download_that_fails(server, tmp_path, page, size, md5, words):
    target = tmp_path / "file.h5"
    target.write_text("before")
    with pytest.raises(DownloadError) as error:
        download(target, f"{server}/{page}", size, md5, timeout=0.5)
    message = str(error.value)
    assert words in message and f"{server}/{page}" in message and str(vgg19_weights.WEIGHTS) in message
    assert "\n" not in message
    assert target.read_text() == "before" and os.listdir(tmp_path) == ["file.h5"]


def test_refused(nobody, tmp_path):
    with pytest.raises(DownloadError, match="refused"):
        download(tmp_path / "file.h5", f"{nobody}/file.h5", len(CONTENT), MD5)


def test_a_cache_that_cannot_be_made(server, tmp_path):
    touch(tmp_path / "cache")
    with pytest.raises(DownloadError, match="cache"):
        download(tmp_path / "cache" / "file.h5", f"{server}/good", len(CONTENT), MD5)


def test_downloaded_once(server, tmp_path, monkeypatch):
    seen = []

    def local(target):
        seen.append(target)
        download(target, f"{server}/good", len(CONTENT), MD5)

    monkeypatch.setattr(vgg19_weights, "download", local)
    assert find_vgg19() == find_vgg19() == tmp_path / "cache" / "tinysrgan" / NAME
    assert len(seen) == 1


# ---------------------------------------------------------------- the real weights


@needs_real
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_real_weights_in_every_spelling(tmp_path, spelling):
    with h5py.File(REAL) as file:
        layers = keras_layers(file)
        weights = {}
        for name, datasets in layers.items():
            arrays = sorted((dataset[()] for dataset in datasets), key=np.ndim)
            weights[name] = arrays[1], arrays[0]
    assert len(weights) == 8
    check(load_vgg19(REAL), weights)
    check(load_vgg19(write(tmp_path / "vgg19.h5", spelling, weights)), weights)


@needs_real
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cut", ["block2_conv2", "block3_conv4"])
def test_real_features_and_gradient_agree_with_pytorch(cut, dtype):
    """The reference is the same net in PyTorch with preprocessing, on black and white cells like a QR code's."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    cells = np.where(rng.random((2, 16, 16, 1)) < 0.5, -0.8, 0.8).repeat(4, axis=1).repeat(4, axis=2)
    x = (cells + rng.uniform(-0.2, 0.2, (2, 64, 64, 3))).astype(dtype)

    net = load_vgg19(REAL, cut).astype(dtype)
    y = net.forward(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = net.backward(dy)
    assert y.dtype == dx.dtype == np.dtype(dtype)

    image = torch.tensor(x, requires_grad=True)
    z = (image + 1) * 127.5
    z = z.flip(-1) - torch.tensor([103.939, 116.779, 123.68], dtype=z.dtype)
    z = z.permute(0, 3, 1, 2)
    with h5py.File(REAL) as file:
        for name in [f"block{b}_conv{c}" for b, count in ((1, 2), (2, 2), (3, 4)) for c in range(1, count + 1)]:
            if name in ("block2_conv1", "block3_conv1"):
                z = torch.nn.functional.max_pool2d(z, 2)
            kernel, bias = (torch.tensor(file[name][f"{name}_{k}_1:0"][()].astype(dtype)) for k in "Wb")
            z = torch.nn.functional.conv2d(z, kernel.permute(3, 2, 0, 1), bias, padding=1).relu()
            if name == cut:
                break
    z = z.permute(0, 2, 3, 1)
    z.backward(torch.tensor(dy))

    exact, rounding = (1e-4, 1e-2) if dtype == "float32" else (1e-12, 1e-12)
    theirs = z.detach().numpy()
    assert abs(y - theirs).max() < exact * abs(theirs).max()
    theirs = image.grad.numpy()
    # In float32 rounding may switch a unit that is nearly zero on or off. This is rare, but visible in dx.
    assert np.median(abs(dx - theirs)) < exact * abs(theirs).max()
    assert np.linalg.norm(dx - theirs) < rounding * np.linalg.norm(theirs)
