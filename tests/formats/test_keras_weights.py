"""Keras' HDF5 files: all spellings give the same weights, and one message names every error of a file."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tinysrgan.formats.keras.weights import WeightsError, keras_layers, load_vgg19
from tinysrgan.models import VGG19

CUT = "block2_conv1"
Weights = dict[str, tuple[np.ndarray, np.ndarray]]  # kernel and bias by layer


def random_weights(cut: str = CUT) -> Weights:
    rng = np.random.default_rng(1)
    shapes = {name: parameter.value.shape for name, parameter in VGG19(cut).parameters().items()}
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    layers = dict.fromkeys(name.split(".")[0] for name in shapes)
    return {layer: (made[f"{layer}.conv.w"], made[f"{layer}.conv.b"]) for layer in layers}


# ---------------------------------------------------------------- the spellings


def keras1(file: h5py.Group, weights: Weights, text: Callable = np.bytes_) -> None:
    file.attrs["layer_names"] = [text(name) for name in weights]
    for layer, (kernel, bias) in weights.items():
        group = file.create_group(layer)
        group.attrs["weight_names"] = [text(f"{layer}_W_1:0"), text(f"{layer}_b_1:0")]
        group[f"{layer}_W_1:0"], group[f"{layer}_b_1:0"] = kernel, bias
    file.create_group("block1_pool").attrs["weight_names"] = np.array([], "S1")


def keras1_text(file: h5py.Group, weights: Weights) -> None:
    keras1(file, weights, text=str)


def keras2(file: h5py.Group, weights: Weights, inside: str = "", colon: str = ":0") -> None:
    for layer, (kernel, bias) in weights.items():
        names = [f"{inside}{layer}/{name}{colon}" for name in ("kernel", "bias")]
        group = file.create_group(layer)
        group.attrs["weight_names"] = names
        group[names[0]], group[names[1]] = kernel, bias


def whole_model(file: h5py.Group, weights: Weights) -> None:
    file.attrs["model_config"] = '{"class_name": "Functional"}'
    keras2(file.create_group("model_weights"), weights)
    for layer, (kernel, _) in weights.items():
        file[f"optimizer_weights/Adam/m/{layer}/kernel:0"] = np.zeros_like(kernel)


def whole_model_keras3(file: h5py.Group, weights: Weights) -> None:
    keras2(file.create_group("model_weights"), weights, inside="vgg19/", colon="")


def inside_another_model(file: h5py.Group, weights: Weights) -> None:
    keras2(file.create_group("model_weights/vgg19"), weights)
    file["model_weights/conv2d/conv2d/kernel:0"] = np.ones((1, 1, 3, 3), np.float32)


def keras3(file: h5py.Group, weights: Weights, named: bool = True) -> None:
    file.create_group("vars").attrs["name"] = "vgg19"
    for number, (layer, arrays) in enumerate(weights.items()):
        variables = file.create_group(f"layers/conv2d_{number}/vars" if number else "layers/conv2d/vars")
        if named:
            variables.attrs["name"] = layer
        variables["0"], variables["1"] = arrays
    file["layers/normalization/vars/0"] = np.ones(3, np.float32)


def keras3_unnamed(file: h5py.Group, weights: Weights) -> None:
    keras3(file, weights, named=False)


SPELLINGS = [
    keras1,
    keras1_text,
    keras2,
    whole_model,
    whole_model_keras3,
    inside_another_model,
    keras3,
    keras3_unnamed,
]


def write(path: Path, spelling: Callable, weights: Weights) -> Path:
    with h5py.File(path, "w") as file:
        spelling(file, weights)
    return path


def check(net: VGG19, weights: Weights) -> None:
    parameters = net.parameters()
    assert {name.split(".")[0] for name in parameters} <= weights.keys()
    for name, parameter in parameters.items():
        layer, kind = name.split(".conv.")
        expected = weights[layer]["wb".index(kind)]
        assert parameter.value.dtype == np.float32
        np.testing.assert_array_equal(parameter.value, expected.astype(np.float32))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_same_net(tmp_path, spelling):
    weights = random_weights()
    net = load_vgg19(write(tmp_path / "vgg19.h5", spelling, weights), CUT)
    check(net, weights)
    assert net.cut == CUT and all(layer.frozen for layer in net.layers())


@pytest.mark.parametrize("spelling", [keras1, keras3_unnamed])
def test_numbers_above_nine_keep_their_order(tmp_path, spelling):
    """All sixteen convolutions: conv2d_10 comes after conv2d_9, not after conv2d_1."""
    weights = random_weights("block5_conv4")
    check(load_vgg19(write(tmp_path / "vgg19.h5", spelling, weights), "block5_pool"), weights)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_become_float32(tmp_path, dtype):
    weights = {layer: (w.astype(dtype), b.astype(dtype)) for layer, (w, b) in random_weights().items()}
    check(load_vgg19(write(tmp_path / "vgg19.h5", keras1, weights), CUT), weights)


@pytest.mark.parametrize("kind", ["old.h5", "new.weights.h5", "weights.h5"])
def test_files_that_keras_itself_wrote(tmp_path, monkeypatch, kind):
    pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    weights = random_weights()
    layers = [
        keras.layers.Conv2D(w.shape[3], 3, padding="same", activation="relu", name=name)
        for name, (w, _) in weights.items()
    ]
    layers.insert(2, keras.layers.MaxPooling2D(name="block1_pool"))
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers])
    for name, arrays in weights.items():
        model.get_layer(name).set_weights(arrays)
    path = tmp_path / kind
    if kind == "old.h5":
        model.save(path)
    else:
        model.save_weights(tmp_path / "new.weights.h5")
        (tmp_path / "new.weights.h5").rename(path)
    check(load_vgg19(path, CUT), weights)


def test_layers_in_order(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in (10, 9, 1):
            file[f"conv2d_{number}/conv2d_{number}/kernel:0"] = np.ones((1, 1, number, 1))
            file[f"conv2d_{number}/conv2d_{number}/bias:0"] = np.ones(1)
        found = keras_layers(file)
        assert list(found) == ["conv2d_1", "conv2d_9", "conv2d_10"]
        assert [dataset.shape for dataset in found["conv2d_9"]] == [(1,), (1, 1, 9, 1)]


# ---------------------------------------------------------------- errors


def refused(path: Path, cut: str = CUT) -> str:
    with pytest.raises(WeightsError) as error:
        load_vgg19(path, cut)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_file_that_stops_early_serves_what_it_has(tmp_path, spelling):
    weights = random_weights()
    path = write(tmp_path / "vgg19.h5", spelling, weights)
    for cut in ("block1_conv1", "block1_conv2", "block1_pool", "block2_conv1"):
        check(load_vgg19(path, cut), weights)
    message = refused(path, "block3_conv2")
    for layer in ("block2_conv2", "block3_conv1", "block3_conv2"):
        assert f"{layer}: no kernel, no bias" in message
    assert "block3_conv3" not in message and "block2_conv1:" not in message
    assert "It serves block2_conv1 and what is before it." in message


def test_all_that_is_wrong_is_in_one_message(tmp_path):
    weights = random_weights()
    kernel, bias = weights["block1_conv2"]
    weights["block1_conv2"] = kernel.transpose(3, 2, 0, 1), bias[:-1]  # Theano's order
    del weights["block2_conv1"]
    path = write(tmp_path / "vgg19.h5", keras1, weights)
    message = refused(path)
    assert (
        "block1_conv2: kernel has shape (64, 64, 3, 3), not (3, 3, 64, 64), bias has shape (63,), not (64,)" in message
    )
    assert "block2_conv1: no kernel, no bias. It serves block1_conv1 and what is before it." in message
    check(load_vgg19(path, "block1_conv1"), weights)


def test_another_net(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["dense/dense/kernel:0"] = np.ones((3, 4))
    assert "It doesn't look like VGG19's" in refused(path)


def test_two_kernels_in_a_layer(tmp_path):
    path = write(tmp_path / "vgg19.h5", keras1, random_weights())
    with h5py.File(path, "a") as file:
        file["block1_conv1/again"] = file["block1_conv1/block1_conv1_W_1:0"][()]
    assert "block1_conv1: 2 kernel" in refused(path)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "vgg19.h5"
    assert "no file" in refused(path)
    assert "folder" in refused(tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1")
    assert "not an HDF5 file" in refused(path)
    write(path, keras1, random_weights())
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged or cut short" in refused(path)


@pytest.mark.parametrize("value, dtype", [(np.nan, np.float32), (np.inf, np.float32), (1e300, np.float64)])
def test_numbers_that_are_not_finite(tmp_path, value, dtype):
    weights = random_weights()
    kernel = weights["block1_conv2"][0].astype(dtype)
    kernel[1, 1, 5, 7] = value
    weights["block1_conv2"] = kernel, weights["block1_conv2"][1]
    assert "block1_conv2.conv.w" in refused(write(tmp_path / "vgg19.h5", keras1, weights))


def external_link(file, name, kernel, folder):
    file[name] = h5py.ExternalLink(folder / "other.h5", "kernel")


def external_storage(file, name, kernel, folder):
    (folder / "kernel").write_bytes(kernel.tobytes())
    file.create_dataset(name, kernel.shape, kernel.dtype, external=[(folder / "kernel", 0, kernel.nbytes)])


def virtual(file, name, kernel, folder):
    layout = h5py.VirtualLayout(kernel.shape, kernel.dtype)
    layout[:] = h5py.VirtualSource(folder / "other.h5", "kernel", kernel.shape)
    file.create_virtual_dataset(name, layout)


def vast(file, name, kernel, folder):
    file.create_dataset(name, (2**20,) * 4, kernel.dtype)


def compressed(file, name, kernel, folder):
    file.create_dataset(name, data=kernel, compression="gzip")


def whole_numbers(file, name, kernel, folder):
    file[name] = kernel.astype(np.int32)


def texts(file, name, kernel, folder):
    file.create_dataset(name, kernel.shape, h5py.string_dtype())


@pytest.mark.parametrize("plant", [external_link, external_storage, virtual, vast, compressed, whole_numbers, texts])
def test_hostile_kernel(tmp_path, plant):
    path = write(tmp_path / "vgg19.h5", keras1, random_weights())
    with h5py.File(path, "a") as file:
        name = "block1_conv2/block1_conv2_W_1:0"
        kernel = file[name][()]
        with h5py.File(tmp_path / "other.h5", "w") as other:
            other["kernel"] = kernel
        del file[name]
        plant(file, name, kernel, tmp_path)
    assert "block1_conv2: " in refused(path)


@pytest.mark.parametrize("name", [7.5, np.array(["block1_conv1"] * 3, h5py.string_dtype())])
def test_hostile_name(tmp_path, name):
    path = write(tmp_path / "vgg19.h5", keras3, random_weights())
    with h5py.File(path, "a") as file:
        file["layers/conv2d/vars"].attrs["name"] = name
    assert "damaged" in refused(path)
