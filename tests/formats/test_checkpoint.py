"""Checkpoints restore every bit, saves are atomic, and malformed files do no harm."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from mistakes import without_privileges

from tinysrgan.core import device
from tinysrgan.formats import checkpoint
from tinysrgan.formats.checkpoint import CheckpointError, load, load_generator, read_state, save, save_generator
from tinysrgan.gradcheck.registry import LAYERS, example
from tinysrgan.layers import Dense, Layer
from tinysrgan.models import Discriminator, Generator
from tinysrgan.ops.device import choose_device
from tinysrgan.optimizers.adam import Adam

STATE = {"step": 120, "phase": "gan", "epoch": 3, "config": {"rate": 1e-4, "seed": 2**100, "vgg": None, "ä": [0.1]}}


def nets(seed: int, **config) -> tuple[dict[str, Layer], dict[str, Adam]]:
    both = {"generator": Generator(2, 4, seed=seed, **config), "discriminator": Discriminator(16, 2, 8, seed=seed)}
    return both, {name: Adam(net.parameters()) for name, net in both.items()}


def trained(seed: int, steps: int = 3) -> tuple[dict[str, Layer], dict[str, Adam]]:
    """Return nets whose tensors and moments all differ, after a few steps along random gradients."""
    both, adams = nets(seed)
    shake(both, adams, seed, steps)
    return both, adams


def shake(both: dict[str, Layer], adams: dict[str, Adam], seed: int, steps: int = 3) -> None:
    rng = np.random.default_rng(seed)
    for name, net in both.items():
        for tensor in net.tensors().values():
            tensor.value += rng.random(tensor.value.shape).astype(tensor.value.dtype)
        for _ in range(steps + (name == "discriminator")):
            for parameter in net.parameters().values():
                parameter.grad[...] = rng.standard_normal(parameter.grad.shape)
            adams[name].step()


def bits(both: dict[str, Layer], adams: dict[str, Adam]) -> dict[str, tuple]:
    """Return everything that a checkpoint must restore, by name."""
    arrays = {f"{name}.{path}": tensor.value for name, net in both.items() for path, tensor in net.tensors().items()}
    for name, adam in adams.items():
        arrays |= {f"adam_{name}.m.{path}": m for path, m in adam.m.items()}
        arrays |= {f"adam_{name}.v.{path}": v for path, v in adam.v.items()}
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()} | {
        f"{name} steps": (adam.steps,) for name, adam in adams.items()
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.h5"
    save(path, *trained(1), STATE)
    return path


def stored_names(net: Layer) -> dict:
    """Return the tensors by their names in a file."""
    names = {"gamma": "scale", "beta": "shift", "running_mean": "mean", "running_variance": "variance"}
    return {
        ".".join(names.get(part, part) for part in path.split(".")): tensor for path, tensor in net.tensors().items()
    }


def refused(path: Path, *words: str, ask=None) -> str:
    """Assert that loading fails with a sentence with these words and leaves the nets unchanged; return the sentence."""
    both, adams = trained(9)
    before = bits(both, adams)
    with pytest.raises(CheckpointError) as error:
        (ask or (lambda path: load(path, both, adams)))(path)
    assert bits(both, adams) == before
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message
    return message


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_comes_back(tmp_path, dtype):
    path = tmp_path / "checkpoint.h5"
    first, second = [nets(seed) for seed in (1, 2)]
    for both, adams in (first, second):
        for name, net in both.items():
            adams[name] = Adam(net.astype(dtype).parameters())
    shake(*first, seed=3)
    save(path, *first, STATE)
    assert bits(*first) != bits(*second)
    assert load(path, *second) == STATE
    assert bits(*first) == bits(*second)
    assert [adam.steps for adam in second[1].values()] == [3, 4]


def test_what_lies_where(saved):
    with h5py.File(saved) as file:
        assert file.attrs["format"] == "tinysrgan" and file.attrs["version"] == 1
        assert json.loads(file.attrs["state"]) == STATE
        assert json.loads(file["discriminator"].attrs["config"]) == dict(size=16, filters=2, dense=8, slope=0.2)
        for name in ("generator/body/1/conv1/w", "generator/body/norm/mean", "adam_generator/m/body/1/conv1/w"):
            assert file[name].dtype == np.float32
        assert "adam_generator/m/body/norm/mean" not in file  # running statistics have no moments


def test_loading_changes_the_arrays_in_place(saved):
    both, adams = nets(2)
    weights = both["generator"].parameters()["tail.w"]
    value = weights.value
    load(saved, both, adams)
    assert weights.value is value and adams["generator"].parameters["tail.w"] is weights


def test_state_is_read_without_nets(saved):
    assert read_state(saved) == STATE


def test_a_large_state_fits(tmp_path):
    state = {"log": [0.1] * 100_000}
    save(tmp_path / "x.h5", {}, {}, state)
    assert read_state(tmp_path / "x.h5") == state


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"scale": 2, "upscale": "nearest"},
        {"scale": 8, "output": "tanh"},
        {"output": "sigmoid", "value_range": "bytes:unit"},
        {"grey": True},
    ],
)
def test_generator_is_rebuilt_from_its_file(tmp_path, config):
    both, adams = nets(1, **config)
    generator = both["generator"]
    shake(both, adams, seed=5)
    save_generator(tmp_path / "generator.h5", generator, {"made by": "a test"})
    save(tmp_path / "checkpoint.h5", both, adams, STATE)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 6, 5, 3)).astype(np.float32)
    y = generator.eval().forward(x)
    for name in ("generator.h5", "checkpoint.h5"):
        loaded = load_generator(tmp_path / name)
        assert loaded.config == generator.config and not any(layer.training for layer in loaded.layers())
        np.testing.assert_array_equal(loaded.forward(x), y)
    assert read_state(tmp_path / "generator.h5") == {"made by": "a test"}


@pytest.mark.parametrize("entry", ["value_range", "grey"])
def test_a_generator_from_before_files_told_it(tmp_path, entry):
    generator = Generator(1, 4, 2, seed=1).eval()
    save_generator(tmp_path / "generator.h5", generator, {})
    with h5py.File(tmp_path / "generator.h5", "r+") as file:
        config = json.loads(file["generator"].attrs["config"])
        del config[entry]
        file["generator"].attrs["config"] = json.dumps(config)
    assert load_generator(tmp_path / "generator.h5").config == generator.config


@pytest.mark.parametrize("grey", [True, False])
def test_a_loaded_net_has_seen_what_the_saved_one_had(tmp_path, grey):
    save_generator(tmp_path / "generator.h5", Generator(1, 4, 2, grey=grey), {})
    other = Generator(1, 4, 2, grey=not grey)
    load(tmp_path / "generator.h5", {"generator": other}, {})
    assert other.config["grey"] is grey


def test_round_trip_on_the_gpu(tmp_path):
    module, reason = choose_device()
    if module is np:
        pytest.skip(f"no GPU: {reason}")
    first, second = trained(1), nets(2)
    save(tmp_path / "cpu.h5", *first, STATE)
    for net in second[0].values():
        net.to(module)
    adams = {name: Adam(net.parameters()) for name, net in second[0].items()}
    load(tmp_path / "cpu.h5", second[0], adams)
    assert all(device.array_module(t.value) is module for t in second[0]["generator"].tensors().values())
    save(tmp_path / "gpu.h5", second[0], adams, STATE)
    third = nets(3)
    load(tmp_path / "gpu.h5", *third)
    assert bits(*third) == bits(*first)


# ---------------------------------------------------------------- atomic saves

SAVE_FOR_EVER = """
import sys
from pathlib import Path
from tinysrgan.optimizers.adam import Adam
from tinysrgan.formats.checkpoint import save
from tinysrgan.layers import Dense
net = Dense(1200, 1200)
adam = Adam(net.parameters())
for number in range(1, 1_000_000):
    for array in [p.value for p in net.parameters().values()] + [*adam.m.values(), *adam.v.values()]:
        array[...] = number
    save(Path(sys.argv[1]), {"net": net}, {"net": adam}, {"number": number})
"""


def test_killed_in_the_middle_of_a_save(tmp_path):
    """Each checkpoint holds the same value everywhere, so a mixture of two would be detected."""
    path = tmp_path / "checkpoint.h5"
    chance = random.Random(0)
    halfway = 0
    for _ in range(30):
        before = set(os.listdir(tmp_path))
        process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, path])
        while not (path.exists() and set(os.listdir(tmp_path)) - before - {path.name}):
            assert process.poll() is None
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        halfway += bool(set(os.listdir(tmp_path)) - {path.name})

        net = Dense(1200, 1200)
        adam = Adam(net.parameters())
        number = load(path, {"net": net}, {"net": adam})["number"]
        for array in [p.value for p in net.parameters().values()] + [*adam.m.values(), *adam.v.values()]:
            assert (array == number).all()
        if halfway == 6:
            break
    assert halfway == 6
    save(path, {"net": net}, {"net": adam}, {})
    assert os.listdir(tmp_path) == [path.name]  # the files of killed processes are removed


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from tinysrgan.formats.checkpoint import CheckpointError, load, save
from tinysrgan.layers import Dense
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, net = Path(sys.argv[1]), Dense(100, 100)
for limit in range(0, 40000, 1500):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(path, {"net": net}, {}, {"limit": limit})
    except CheckpointError as error:
        print(error)
    else:
        sys.exit(f"{limit} bytes were enough")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
save(path.with_name("later.h5"), {"net": net}, {}, {})
load(path.with_name("later.h5"), {"net": net}, {})
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
def test_a_disk_that_fills_up_leaves_the_old_file(saved):
    before = saved.read_bytes()
    done = subprocess.run([sys.executable, "-c", DISK_FULL, saved], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 27
    assert set(lines) == {f"{saved} can't be written: File too large. What was there before is intact."}
    assert saved.read_bytes() == before
    assert sorted(os.listdir(saved.parent)) == ["checkpoint.h5", "later.h5"]
    assert not done.stderr


def test_numbers_that_are_not_finite_are_not_saved(saved):
    before = saved.read_bytes()
    both, adams = trained(1)
    both["generator"].tensors()["body.norm.running_variance"].value[1] = np.nan
    adams["discriminator"].v["dense.b"][0] = np.inf
    with pytest.raises(CheckpointError) as error:
        save(saved, both, adams, STATE)
    for name in (str(saved), "generator.body.norm.variance", "adam_discriminator.v.dense.b"):
        assert name in str(error.value)
    assert saved.read_bytes() == before


def test_a_state_that_json_cannot_say_leaves_the_old_file(saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save(saved, {}, {}, {"step": object()})
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere/x.h5 can't be written: No such file or directory"):
        save(tmp_path / "nowhere" / "x.h5", {}, {}, {})


def test_a_link_keeps_its_place(tmp_path, saved):
    link = tmp_path / "link.h5"
    link.symlink_to(saved)
    save(link, {}, {}, {"new": 1})
    assert link.is_symlink() and read_state(saved) == {"new": 1}


def test_other_files_temporary_files_are_left_alone(saved):
    other = saved.with_name(".checkpoint.h5.old.h5.01234567.tmp")
    mine = saved.with_name(".checkpoint.h5.01234567.tmp")
    other.touch()
    mine.touch()
    save(saved, {}, {}, {})
    assert other.exists() and not mine.exists()


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_saved_and_loaded(tmp_path, name):
    """A layer's tensors and Adam's moments are restored bit for bit."""
    layers = [example(name)[0] for _ in range(2)]
    adams = [{"net": Adam(layer.parameters())} for layer in layers]
    for tensor in layers[0].tensors().values():
        tensor.value += 1
    for parameter in layers[0].parameters().values():
        parameter.grad += 1
    adams[0]["net"].step()
    save(tmp_path / "x.h5", {"net": layers[0]}, adams[0], STATE)
    assert load(tmp_path / "x.h5", {"net": layers[1]}, adams[1]) == STATE
    assert bits({"net": layers[0]}, adams[0]) == bits({"net": layers[1]}, adams[1])


def test_batch_norm_has_the_names_of_the_first_files(saved):
    """All versions of tinysrgan can then read each other's files."""
    with h5py.File(saved) as file:
        assert set(file["generator/body/0/norm1"]) == {"scale", "shift", "mean", "variance"}
        assert set(file["adam_generator/m/body/0/norm1"]) == {"scale", "shift"}


# ---------------------------------------------------------------- mismatched files


def test_mismatch_lists_every_name(saved):
    """One message lists missing, unexpected and misshapen tensors: here the numbers of blocks and channels differ."""
    both = {"generator": Generator(1, 8), "discriminator": Discriminator(16, 2, 8)}
    with h5py.File(saved, "a") as file:
        del file["discriminator/dense/w"]
    with pytest.raises(CheckpointError) as error:
        load(saved, both, {})
    message = str(error.value)
    expected = {"discriminator.dense.w is missing"}
    theirs, ours = stored_names(Generator(2, 4)), stored_names(both["generator"])
    expected |= {f"generator.{name} is unexpected" for name in theirs.keys() - ours.keys()}
    for name in theirs.keys() & ours.keys():
        there, here = theirs[name].value.shape, ours[name].value.shape
        if there != here:
            expected.add(f"generator.{name} has shape {there}, not {here}")
    assert {"unexpected", "missing", "shape"} <= set(re.findall("unexpected|missing|shape", " ".join(expected)))
    assert set(message.removesuffix(".").partition("doesn't fit the net: ")[2].split("; ")) == expected


def test_another_dtype_is_a_mismatch(saved):
    both, _ = nets(1)
    with pytest.raises(CheckpointError, match=r"generator\.tail\.b holds float32, not float64"):
        load(saved, {"generator": both["generator"].astype(np.float64)}, {})


def test_generator_file_is_no_run_to_go_on_with(tmp_path):
    save_generator(tmp_path / "generator.h5", Generator(2, 4), {})
    refused(tmp_path / "generator.h5", "it has no adam_discriminator, adam_generator, discriminator")


def test_whole_checkpoint_without_a_generator(tmp_path):
    save(tmp_path / "x.h5", {"discriminator": Discriminator(16, 2, 8)}, {}, {})
    refused(tmp_path / "x.h5", "holds no generator", ask=load_generator)


ALL = [None, load_generator, read_state]


@pytest.mark.parametrize("ask", ALL)
def test_files_that_are_none(tmp_path, ask):
    refused(tmp_path / "absent.h5", "no file", ask=ask)
    refused(tmp_path, "folder", ask=ask)
    for name, content in {"empty": b"", "text": b"hello", "png": b"\x89PNG\r\n\x1a\n" * 100}.items():
        path = tmp_path / f"{name}.h5"
        path.write_bytes(content)
        refused(path, "not an HDF5 file", ask=ask)


@pytest.mark.parametrize("ask", ALL)
def test_truncated(saved, ask):
    content = saved.read_bytes()
    for length in (9, 100, 2000, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        refused(saved, "damaged or cut short", ask=ask)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_no_permission(monkeypatch):
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    path = folder / "checkpoint.h5"
    save(path, *trained(1), STATE)
    path.chmod(0)
    root = os.geteuid() == 0
    with without_privileges(monkeypatch):
        refused(path, "can't be read: Permission denied")
        if root:
            with pytest.raises(CheckpointError, match="can't be written: Permission denied"):
                save(path, *trained(1), STATE)
    shutil.rmtree(folder)


@pytest.mark.parametrize("ask", ALL)
@pytest.mark.parametrize(
    "name, value, words",
    [
        ("format", None, "not one that tinysrgan wrote"),
        ("format", "other", "not one that tinysrgan wrote"),
        ("version", 2, "format version 2; this tinysrgan reads 1"),
        ("version", None, "format version None"),
        ("version", np.ones(1000, int), "damaged"),
        ("state", "{", "damaged"),
        ("state", "7", "damaged"),
        ("state", "[" * 100_000, "damaged"),
        ("state", None, "damaged"),
        ("state", np.array(["{}"] * 3, h5py.string_dtype()), "damaged"),
    ],
)
def test_wrong_header(saved, ask, name, value, words):
    with h5py.File(saved, "a") as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value
    refused(saved, words, ask=ask)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_loaded(saved, value):
    with h5py.File(saved, "a") as file:
        file["generator/tail/w"][0, 0, 0, 0] = value
        file["adam_generator/v/tail/w"][0, 0, 0, 0] = value
    refused(saved, "generator.tail.w", "adam_generator.v.tail.w", "finite")
    refused(saved, "generator.tail.w", ask=load_generator)


def test_no_count_of_steps(saved):
    with h5py.File(saved, "a") as file:
        del file["adam_generator"].attrs["steps"]
    refused(saved, "damaged")


# ---------------------------------------------------------------- hostile files


def external_link(file, name, folder):
    file[name] = h5py.ExternalLink(folder / "other.h5", "x")


def link_to_a_pipe(file, name, folder):
    os.mkfifo(folder / "pipe")  # opening it would block for ever
    file[name] = h5py.ExternalLink(folder / "pipe", "x")


def soft_link(file, name, folder):
    file["elsewhere"] = np.ones(3, np.float32)
    file[name] = h5py.SoftLink("/elsewhere")


def external_storage(file, name, folder):
    (folder / "secret").write_bytes(bytes(12))
    file.create_dataset(name, (3,), np.float32, external=[(folder / "secret", 0, 12)])


def virtual(file, name, folder):
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (3,))
    file.create_virtual_dataset(name, layout)


def compressed(file, name, folder):
    file.create_dataset(name, data=np.ones(3, np.float32), compression="gzip")


def never_written(file, name, folder):
    file.create_dataset(name, (3,), np.float32)


def vast(file, name, folder):
    file.create_dataset(name, (2**50,), np.float32)


def texts(file, name, folder):
    file.create_dataset(name, data=["a", "b", "c"])


def references(file, name, folder):
    file.create_dataset(name, data=[file.ref] * 3, dtype=h5py.ref_dtype)


def group(file, name, folder):
    file.create_group(name)


def circle(file, name, folder):
    file[name] = file["/"]


@pytest.mark.parametrize(
    "plant",
    [
        external_link,
        pytest.param(link_to_a_pipe, marks=pytest.mark.skipif(os.name == "nt", reason="no named pipes")),
        soft_link,
        external_storage,
        virtual,
        compressed,
        never_written,
        vast,
        texts,
        references,
        group,
        circle,
    ],
)
def test_hostile_tensor(saved, plant):
    with h5py.File(saved.with_name("other.h5"), "w") as file:
        file["x"] = np.ones(3, np.float32)
    with h5py.File(saved, "a") as file:
        del file["generator/tail/b"]  # it has three elements
        plant(file, "generator/tail/b", saved.parent)
    refused(saved, "generator.tail.b")
    refused(saved, "generator.tail.b", ask=load_generator)


def test_hostile_group(saved):
    shutil.copy(saved, saved.with_name("other.h5"))
    with h5py.File(saved, "a") as file:
        del file["generator"]
        file["generator"] = h5py.ExternalLink(saved.with_name("other.h5"), "generator")
    refused(saved, "has no generator")
    refused(saved, "holds no generator", ask=load_generator)


@pytest.mark.parametrize(
    "name, value",
    [
        ("blocks", 10**9),
        ("blocks", 0),
        ("blocks", True),
        ("blocks", 2.0),
        ("filters", 513),
        ("filters", "4"),
        ("filters", None),
        ("scale", 1024),
        ("upscale", ["shuffle"]),
        ("output", "__import__"),
        ("seed", 1),
    ],
)
def test_hostile_config(saved, name, value):
    with h5py.File(saved, "a") as file:
        config = json.loads(file["generator"].attrs["config"])
        file["generator"].attrs["config"] = json.dumps(config | {name: value})
    refused(saved, "the generator's", ask=load_generator)


def test_a_generator_that_could_not_be_loaded_is_not_saved(saved):
    before = saved.read_bytes()
    with pytest.raises(CheckpointError, match="generator's blocks is 65, but must be 1 to 64"):
        save_generator(saved, Generator(65, 1), {})
    assert saved.read_bytes() == before


def test_config_may_say_all_that_a_generator_takes():
    assert checkpoint.GENERATOR_CONFIG.keys() == Generator(1, 1).config.keys()
