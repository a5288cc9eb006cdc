"""PyTorch's generators: files that PyTorch wrote, through the converter in examples/, give PyTorch's own output."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinysrgan.core.errors import UserError
from tinysrgan.formats.generator_files import is_ours, read_generator
from tinysrgan.formats.torch_weights import load_torch_generator

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
nn = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore::tinysrgan.formats.keras.nets.UnknownWiring")
CONVERTER = Path(__file__).parents[2] / "examples" / "pth_to_safetensors.py"


class Block(nn.Module):
    def __init__(self, filters: int, norm: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(filters, filters, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(filters) if norm else nn.Identity()
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(filters) if norm else nn.Identity()

    def forward(self, x):
        return x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))


class SRGAN(nn.Module):
    """A generator as PyTorch users write it. ``names``: "numbers", in natural order the forward one, or "words"."""

    def __init__(self, blocks=2, filters=4, doublings=2, norm=True, tanh=False, names="numbers", end=9):
        super().__init__()
        self.tanh = tanh
        head = nn.Sequential(nn.Conv2d(3, filters, end, padding=end // 2), nn.PReLU(filters))
        body = nn.Sequential(*[Block(filters, norm) for _ in range(blocks)])
        trunk = nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1, bias=False))
        if norm:
            trunk.append(nn.BatchNorm2d(filters))
        upscale = nn.Sequential()
        for _ in range(doublings):
            upscale.extend([nn.Conv2d(filters, 4 * filters, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()])
        tail = nn.Conv2d(filters, 3, end, padding=end // 2)
        words = ("stem", "body", "trunk", "upscale", "output")
        self.parts = words if names == "words" else [f"part{i}" for i in (1, 2, 3, 10, 11)]
        for name, part in zip(self.parts, (head, body, trunk, upscale, tail), strict=True):
            self.add_module(name, part)

    def forward(self, x):
        head, body, trunk, upscale, tail = (getattr(self, name) for name in self.parts)
        x = head(x)
        y = tail(upscale(x + trunk(body(x))))
        return torch.tanh(y) if self.tanh else y


def net(**options) -> SRGAN:
    torch.manual_seed(0)
    made = SRGAN(**options).eval()
    for name, tensor in made.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.3, 2)
        elif "running_mean" in name or ("bn" in name and tensor.is_floating_point()):
            tensor.uniform_(-0.5, 0.5)
    return made


def converted(model: SRGAN, folder: Path, content=lambda weights: weights) -> Path:
    """Through a .pth file and the converter."""
    torch.save(content(model.state_dict()), folder / "x.pth")
    line = [sys.executable, CONVERTER, folder / "x.pth", folder / "x.safetensors"]
    subprocess.run([*map(str, line)], check=True, capture_output=True)
    return folder / "x.safetensors"


def difference(model: SRGAN, path: Path, values: str) -> float:
    """The largest one from PyTorch's output, for images in [-1, 1]."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, 6, 5, 3)).astype(np.float32)
    with torch.no_grad():
        y = model(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    return float(np.abs(read_generator(path, values).forward(x) - y).max())


@pytest.mark.parametrize(
    "options, values",
    [
        ({}, "signed"),
        ({"norm": False, "tanh": True, "names": "words"}, "signed:tanh"),
        ({"doublings": 1, "filters": 3, "names": "words", "end": 3}, "signed"),
    ],
)
@pytest.mark.parametrize(
    "content",
    [
        lambda weights: weights,
        lambda weights: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}},
    ],
)
def test_pytorch_s_own_output(tmp_path, options, values, content):
    model = net(**options)
    assert difference(model, converted(model, tmp_path, content), values) < 1e-5


def test_a_file_without_order_is_read_where_its_names_give_it(tmp_path):
    """The natural order of numbered layers: part2 before part10. Any other order is refused, not guessed."""
    model, path = net(norm=False), tmp_path / "x.safetensors"
    safetensors.save_file(model.state_dict(), path)
    assert not is_ours(path)
    with pytest.raises(UserError, match=r"examples/pth_to_safetensors\.py"):  # conv2 comes before prelu
        load_torch_generator(path, "signed")
    names = {"conv1": "1", "prelu": "2", "conv2": "3"}
    renamed = {".".join(names.get(part, part) for part in name.split(".")): x for name, x in model.state_dict().items()}
    safetensors.save_file(renamed, path)
    assert difference(model, path, "signed") < 1e-5


def test_mistakes_are_one_sentence(tmp_path, monkeypatch):
    path = converted(net(), tmp_path)
    with pytest.raises(UserError, match="add --value-range"):
        read_generator(path)
    tail = net().state_dict()["part11.weight"]
    for name, value, words in (
        ("part11.weight", tail / 0, "no finite weight"),
        ("part11.weight", tail[:, :, :5], "has shape"),
        ("part11.attention", tail, "part11 has"),
        ("part12.weight", tail, "SRGAN"),
    ):
        changed = converted(net(), tmp_path, lambda weights, name=name, value=value: {**weights, name: value})
        with pytest.raises(UserError, match=words):
            load_torch_generator(changed, "signed")
    path = converted(net(), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        read_generator(path, "signed")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match="pip install safetensors"):
        read_generator(path, "signed")


def test_the_converter_runs_no_code(tmp_path):
    """A pickle with a call in it is refused by PyTorch."""

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trap",))

    torch.save({"w": Evil()}, tmp_path / "x.pth")
    line = [sys.executable, CONVERTER, tmp_path / "x.pth", tmp_path / "x.safetensors"]
    assert subprocess.run([*map(str, line)], capture_output=True).returncode != 0
    assert not (tmp_path / "trap").exists() and not (tmp_path / "x.safetensors").exists()
