"""Generators from Keras: files written by Keras give Keras' outputs, all other files one sentence.

``keras_files/make_files.py`` describes the files.
"""

import base64
import importlib.util
import json
import marshal
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tinysrgan.core.errors import UserError
from tinysrgan.formats.keras.nets import (
    UnknownWiring,
    load_keras_discriminator,
    load_keras_generator,
)
from tinysrgan.formats.keras.saving import save_keras_archive, save_keras_generator
from tinysrgan.layers import BatchNorm, LeakyReLU, PReLU
from tinysrgan.models import Generator

pytestmark = pytest.mark.filterwarnings("ignore::tinysrgan.formats.keras.nets.UnknownWiring")

KERAS = Path(__file__).parent / "keras_files"
NAMES = [
    f"{archive.stem}/{name.removesuffix('.h5')}"
    for archive in sorted(KERAS.glob("*.zip"))
    for name in zipfile.ZipFile(archive).namelist()
    if name.endswith((".h5", ".keras"))
]
RANGES = {"signed": (-1, 1), "unit": (0, 1), "bytes": (0, 255)}

# By form: the --value-range of the convolutions' inputs and outputs, and the ranges of Keras' own x and y.
FORMS = {
    "article": ("bytes", "bytes", "bytes"),
    "article_x2": ("bytes:bytes", "bytes", "bytes"),
    "krasserm": ("unit:tanh", "bytes", "bytes"),
    "paper": ("signed", "signed", "signed"),
    "rescaling": (None, "bytes", "bytes"),
    "nobias": ("signed:tanh", "signed", "signed"),
    "nested": (None, "bytes", "bytes"),
    "unit": ("unit", "unit", "unit"),
    "sigmoid": ("unit:sigmoid", "unit", "unit"),
    # the same net as SRGAN, written in other ways
    "idle": ("signed:tanh", "signed", "signed"),
    "own_layer": ("signed:tanh", "signed", "signed"),
    "operators": ("signed:tanh", "bytes", "bytes"),
    "parts": ("signed:tanh", "signed", "signed"),
    "sequential": (None, "bytes", "bytes"),
    # other activations, no batch norms
    "mixed": ("signed:tanh", "signed", "signed"),
    "relu_everywhere": ("signed", "signed", "signed"),
    "no_norm": ("signed", "signed", "signed"),
    "edsr": ("unit", "unit", "unit"),
}

# Whole models with another wiring: the reason, and the layer that the message names.
WRONG = {
    "upsampling_first": r"after layer 'add_\d+' \('Add'\) comes layer 'up_sampling2d\w*' .* instead of Conv2D",
    "bilinear": r"layer 'up_sampling2d\w*' .* has interpolation 'bilinear', not 'nearest'",
    "scaled": r"after layer 'batch_norm\w+' .* comes layer 'lambda_\d+' \('Lambda'\) instead of Add",
    "scaled_operator": r"comes layer '[\w.]*multiply\w*' \('\w+'\) instead of Add",
    "preactivation": r"after layer 'p_re_lu_\d+' .* comes layer 'batch_norm\w+' .* instead of Conv2D",
    "no_skip": r"after layer 'batch_norm\w+' .* comes layer 'conv2d_\d+' .* instead of Add",
    "no_long_skip": r"after layer 'batch_norm\w+' .* comes layer 'conv2d_\d+' .* instead of Add",
    "early_skip": r"layer 'add_\d+' .* takes layer 'conv2d_\d+' .* instead of layer 'p_re_lu_\d+'",
    "average": r"comes layer 'average' \('Average'\) instead of Add",
    "prelu_first": r"comes layer 'p_re_lu_\d+' .* instead of BatchNormalization",
    "relu_after_add": r"after layer 'add_\d+' .* comes layer 're_lu' .* instead of Conv2D",
    "relu": r"comes activation 'relu' of layer 'conv2d_\d+' .* instead of pixel shuffle",
    "valid": r"layer 'conv2d_\d+' .* has padding 'valid', not 'same'",
    "global_skip": r"comes layer 'up_sampling2d_\d+' .* instead of PReLU",
    "lambda_upsampling": r"after layer 'conv2d_\d+' .* comes layer 'lambda_\d+' .* instead of UpSampling2D",
    "discriminator_pooled": r"comes layer 'global_average_pooling2d' .* instead of Flatten",
    "discriminator_relu": r"comes activation 'relu' of layer 'dense_\d+' .* instead of LeakyReLU",
    "discriminator_first_strides": r"layer 'conv2d_\d+' .* has strides \[1, 1\], not \(2, 2\)",
}


def form(name: str) -> str:
    """Return the form of a file: keras3/paper.weights -> paper."""
    return re.sub("[._](weights|model|trained|keras)$", "", name.split("/")[1])


def path_of(files: Path, name: str) -> Path:
    return files / (name if name.endswith(".keras") else f"{name}.h5")


GENERATORS = [name for name in NAMES if form(name) in FORMS and name != "keras3/nested.weights"]
DISCRIMINATORS = [name for name in NAMES if "discriminator" in name and form(name) not in WRONG]


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """Extract all of Keras' files to a folder."""
    folder = tmp_path_factory.mktemp("keras")
    for archive in KERAS.glob("*.zip"):
        zipfile.ZipFile(archive).extractall(folder / archive.stem)
    return folder


def convert(values: np.ndarray, source: str, target: str) -> np.ndarray:
    (low, high), (new_low, new_high) = RANGES[source], RANGES[target]
    return (new_low + (values - low) * ((new_high - new_low) / (high - low))).astype(np.float32)


def error(generator: Generator, answers: Path, range_in: str, range_out: str) -> float:
    """Return the largest difference from Keras' output, relative to the range of values, or its own if larger."""
    keras = np.load(answers)
    y = generator.forward(convert(keras["x"], range_in, "signed"))
    low, high = RANGES[range_out]
    return float(np.abs(convert(y, "signed", range_out) - keras["y"]).max()) / max(high - low, np.ptp(keras["y"]))


def load(files: Path, name: str) -> Generator:
    return load_keras_generator(path_of(files, name), FORMS[form(name)][0])


def refuse(path: Path, words: str, values: str | None = "unit:tanh") -> str:
    """Assert that loading fails with one sentence with these words that names the file."""
    with pytest.raises(UserError) as caught:
        load_keras_generator(path, values)
    said = str(caught.value)
    assert words in said, said
    assert path.name in said and said.endswith(".") and "\n" not in said, said
    assert len(said) < 5000, said
    return said


# ---------------------------------------------------------------- Keras' outputs


@pytest.mark.parametrize("name", GENERATORS)
def test_keras_own_output(files, name):
    _, range_in, range_out = FORMS[form(name)]
    generator = load(files, name)
    assert not any(layer.training for layer in generator.layers())
    assert all(tensor.value.dtype == np.float32 for tensor in generator.tensors().values())
    assert error(generator, files / f"{name.removesuffix('.keras')}.npz", range_in, range_out) < 1e-5


def test_every_form_of_keras_files_is_there():
    assert {form(name) for name in GENERATORS} == FORMS.keys()
    assert {form(name) for name in NAMES} >= WRONG.keys()
    assert len(GENERATORS) == 43 and len(DISCRIMINATORS) == 8


@pytest.mark.parametrize(
    "name, config",
    [
        ("keras2/article_weights", dict(blocks=2, filters=4, scale=4, upscale="nearest", output="linear")),
        ("keras3/paper.weights", dict(blocks=3, filters=3, scale=4, upscale="shuffle", output="linear")),
        ("keras3.0/nobias_model", dict(blocks=1, filters=2, scale=2, upscale="shuffle", output="tanh")),
        ("archives3/edsr.keras", dict(blocks=3, filters=4, scale=4, upscale="shuffle", norm=False)),
        ("archives3/mixed.keras", dict(blocks=2, filters=3, scale=2, upscale="nearest", output="tanh", norm=True)),
        ("keras3/sigmoid_model", dict(blocks=1, filters=16, scale=2, upscale="shuffle", output="sigmoid")),
    ],
)
def test_the_architecture_comes_from_the_shapes(files, name, config):
    assert config.items() <= load(files, name).config.items()


def test_every_keras_gives_a_form_the_same_net(files):
    for of in FORMS:
        first, *others = [load(files, name).tensors() for name in GENERATORS if form(name) == of]
        for other in others:
            assert first.keys() == other.keys()
            assert all(np.array_equal(first[path].value, other[path].value) for path in first)


@pytest.mark.parametrize("name", ["keras3/paper.weights", "keras2/article_weights", "keras3/rescaling_trained"])
def test_every_tensor_counts(files, name):
    """Changing any tensor changes the output, so no tensor can be in the wrong place."""
    _, range_in, range_out = FORMS[form(name)]
    for path in load(files, name).tensors():
        generator = load(files, name)
        value = generator.tensors()[path].value
        value[...] = np.roll(value, 1, axis=-1)
        assert error(generator, files / f"{name}.npz", range_in, range_out) > 1e-4, path


@pytest.mark.parametrize("name", ["keras2/rescaling_model", "keras3/rescaling_trained"])
def test_another_epsilon_counts(files, name):
    """These files have 1e-5 instead of Keras' default 1e-3. The difference exceeds the tests' tolerance."""
    generator = load(files, name)
    for layer in generator.layers():
        if isinstance(layer, BatchNorm):
            layer.gamma.value *= np.sqrt((layer.running_variance.value + 1e-5) / (layer.running_variance.value + 1e-3))
    assert error(generator, files / f"{name}.npz", "bytes", "bytes") > 1e-4


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators(files, name):
    discriminator = load_keras_discriminator(files / f"{name}.h5")
    keras = np.load(files / f"{name}.npz")
    given = {"slope3": [0.3] * 8 + [0.2], "slope3_everywhere": [0.3] * 9}
    given["slopes"] = [0.2, *(block / 10 for block in range(1, 8)), 0.2]
    slopes = [layer.slope for layer in discriminator.layers() if isinstance(layer, LeakyReLU)]
    np.testing.assert_allclose(slopes, given.get(form(name).removeprefix("discriminator_"), [0.2] * 9), rtol=1e-6)
    logits = np.log(keras["y"] / (1 - keras["y"]))
    assert np.ptp(logits) > 0.01
    np.testing.assert_allclose(discriminator.forward(keras["x"]), logits, rtol=0, atol=1e-5)
    assert not any(layer.training for layer in discriminator.layers())


def test_a_discriminators_slope_is_an_option_where_the_file_does_not_tell(files):
    path = files / "keras2/discriminator_weights.h5"
    assert load_keras_discriminator(path, slope=0.3).config["slope"] == 0.3
    assert load_keras_discriminator(files / "keras3/discriminator_slope3_model.h5", 0.1).config["slope"] == 0.3


def test_constant_slopes(files):
    """PReLUs by the graph: ReLU's 0, LeakyReLU's 0.2, and 1 where there is no activation."""
    slopes = {
        form: [float(layer.slope.value[0]) for layer in load(files, name).layers() if isinstance(layer, PReLU)]
        for form, name in (("mixed", "archives3/mixed_model"), ("edsr", "archives3/edsr.keras"))
    }
    assert slopes["mixed"][0] == 0 and slopes["mixed"][3] == np.float32(0.2)
    assert not {0.0, 1.0} & {*slopes["mixed"][1:3]}  # those in the blocks have weights
    assert slopes["edsr"] == [1, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("option, value", [("max_value", 6.0), ("threshold", 0.5)])
def test_a_relu_with_limits_is_refused(files, tmp_path, option, value):
    path = changed(
        files,
        tmp_path,
        "archives3/relu_everywhere_model",
        "ReLU",
        1,
        lambda layer: layer["config"].update({option: value}),
    )
    assert "('ReLU') instead of PReLU" in refuse(path, "is not wired", "signed")


def test_a_net_with_batch_norms_needs_all_its_activations(files, tmp_path):
    """Only of nets like EDSR they may be absent."""
    path = changed(
        files,
        tmp_path,
        "archives3/relu_everywhere_model",
        "Activation",
        0,
        lambda layer: layer["config"].update(activation="linear"),
    )
    assert "instead of PReLU" in refuse(path, "is not wired", "signed")


# ---------------------------------------------------------------- .keras archives


def packed(path: Path, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name.replace("_", ".", 1) if name == "config_json" else "model.weights.h5", content)
    return path


def test_damaged_archives(files, tmp_path):
    whole = (files / "archives3/paper.keras").read_bytes()
    with zipfile.ZipFile(files / "archives3/paper.keras") as archive:
        config, weights = archive.read("config.json"), archive.read("model.weights.h5")
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255
    path = tmp_path / "x.keras"
    for content in (whole[:-40], whole[: len(whole) // 2], bytes(broken)):
        path.write_bytes(content)
        refuse(path, "", "signed")
    refuse(packed(path, config_json=config, weights=weights[:5000]), "damaged", "signed")
    refuse(packed(path, config_json=b"{", weights=weights), "damaged", "signed")
    refuse(packed(path, config_json=b"\xff", weights=weights), "damaged", "signed")
    refuse(packed(path, config_json=b"[" * 10**8, weights=weights), "unpacks to 100,", "signed")
    with pytest.raises(UserError, match=r"x\.keras"):
        load_keras_discriminator(path)


def test_an_archive_of_models_within_a_model_is_read_by_its_layers_names(files, tmp_path):
    """Without the names there is no order, which is an error as in .weights.h5."""
    with zipfile.ZipFile(files / "archives3/nested.keras") as archive:
        archive.extractall(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "r+") as file:
        groups: list[h5py.HLObject] = []
        file.visititems(lambda name, item: groups.append(item))
        for group in groups:
            group.attrs.pop("name", None)
    contents = {
        "config_json": (tmp_path / "config.json").read_bytes(),
        "weights": (tmp_path / "model.weights.h5").read_bytes(),
    }
    refuse(packed(tmp_path / "x.keras", **contents), "models within a model", None)


# ---------------------------------------------------------------- wiring


@pytest.mark.parametrize("name", [name for name in NAMES if form(name) in WRONG])
def test_another_wiring_is_refused(files, name):
    load_it = load_keras_discriminator if "discriminator" in name else load_keras_generator
    with pytest.raises(UserError) as caught:
        load_it(files / f"{name}.h5")
    said = str(caught.value)
    assert re.search(WRONG[form(name)], said), said
    assert said.endswith("load its weights alone (model.save_weights).") and "\n" not in said


@pytest.mark.parametrize("name", [name for name in NAMES if form(name) in WRONG and "discr" not in name])
def test_another_wiring_matters(files, tmp_path, name):
    """Without its graph, each of these files loads but gives wrong images."""
    path = tmp_path / "weights.h5"
    with h5py.File(files / f"{name}.h5") as model, h5py.File(path, "w") as weights:
        model.copy(model["model_weights"], weights)
    with pytest.warns(UnknownWiring, match="weights.h5 holds weights alone"):
        generator = load_keras_generator(path, "signed" if form(name) == "valid" else "signed:tanh")
    keras = np.load(files / f"{name}.npz")
    y = generator.forward(keras["x"])
    assert y.shape != keras["y"].shape or np.abs(y - keras["y"]).max() > 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["wirings2/parts_model", "wirings3/parts_model", "keras3/nested_model"])
def test_a_whole_model_gives_no_warning(files, tmp_path, name):
    save_keras_generator(tmp_path / "ours.h5", load(files, name))
    load_keras_generator(tmp_path / "ours.h5")


def test_weights_alone_of_a_discriminator(files):
    with pytest.warns(UnknownWiring, match="don't tell how the layers are connected"):
        load_keras_discriminator(files / "keras2/discriminator_weights.h5")


def changed(files: Path, tmp_path: Path, name: str, kind: str, number: int, change) -> Path:
    """Return a copy of a whole model in which ``change`` has edited the JSON of one layer."""

    def edit(model):
        change([layer for layer in model["config"]["layers"] if layer["class_name"] == kind][number])

    return edited(files, tmp_path, lambda file: edit_config(file, edit), name)


def edit_config(file: h5py.File, edit) -> None:
    model = json.loads(file.attrs["model_config"])
    edit(model)
    del file.attrs["model_config"]
    file.attrs["model_config"] = json.dumps(model)


OPTIONS = [
    ("Conv2D", 2, "strides", [2, 2]),
    ("Conv2D", 0, "strides", "x"),
    ("Conv2D", -1, "padding", "valid"),
    ("Conv2D", 1, "dilation_rate", [2, 2]),
    ("Conv2D", 1, "groups", 2),
    ("Conv2D", 1, "data_format", "channels_first"),
    ("UpSampling2D", 0, "interpolation", "bicubic"),
    ("UpSampling2D", 0, "size", [3, 3]),
    ("UpSampling2D", 0, "size", {"a": []}),
    ("BatchNormalization", 1, "axis", [1]),
    ("BatchNormalization", 1, "epsilon", float("nan")),
    ("BatchNormalization", 1, "epsilon", -5.0),
    ("PReLU", 2, "shared_axes", [1]),
    ("PReLU", 2, "shared_axes", None),
]


@pytest.mark.parametrize("kind, number, option, value", OPTIONS)
def test_options_that_compute_something_else(files, tmp_path, kind, number, option, value):
    path = changed(
        files,
        tmp_path,
        "keras3/article_x2_model",
        kind,
        number,
        lambda layer: layer["config"].update({option: value}),
    )
    assert kind in refuse(path, f"has {option} {value!r}", "bytes")


@pytest.mark.parametrize(
    "activation, words",
    [
        ("softplus", "after layer"),
        ({"module": "builtins", "class_name": "function", "config": "relu6"}, "'relu6'"),
        ({"class_name": "LeakyReLU", "config": {"alpha": 0.3}}, "'LeakyReLU'"),
        ([1], "[1]"),
    ],
)
def test_activations_that_are_not_srgans(files, tmp_path, activation, words):
    def change(layer):
        layer["config"]["activation"] = activation

    refuse(changed(files, tmp_path, "keras3/nobias_model", "Conv2D", -1, change), words)


def test_an_unknown_layer(files, tmp_path):
    path = changed(
        files, tmp_path, "keras3/nobias_model", "Add", 0, lambda layer: layer.update(class_name="SelfAttention")
    )
    refuse(path, "'SelfAttention'")


def test_a_model_within_that_is_called_twice(files, tmp_path):
    def change(layer):
        layer["inbound_nodes"] *= 2

    refuse(changed(files, tmp_path, "keras3/nested_model", "Functional", 0, change), "more than once", None)


@pytest.mark.parametrize("layers", [[], [{"class_name": "Lambda", "config": {"name": "code"}}]])
def test_a_graph_without_a_net_is_not_taken_for_weights_alone(files, tmp_path, layers):
    model = json.dumps({"class_name": "Sequential", "config": {"name": "empty", "layers": layers}})
    path = edited(files, tmp_path, attribute("model_config", model))
    refuse(path, "after the input comes the end instead of Conv2D")


def test_two_outputs(files, tmp_path):
    def edit(model):
        first = [model["config"]["layers"][1]["name"], 0, 0]
        model["config"]["output_layers"] = [model["config"]["output_layers"], first]

    path = edited(files, tmp_path, lambda file: edit_config(file, edit), "keras3/nobias_model")
    refuse(path, "2 outputs")


KERAS_1 = {"padding": "border_mode", "strides": "subsample", "data_format": "dim_ordering"}


def in_keras_1_spelling(model: dict) -> None:
    """Rewrite Keras 2's model_config as Keras 1 writes it: Convolution2D, Merge and its options."""
    model["class_name"] = "Model"
    for layer in model["config"]["layers"]:
        options = layer["config"]
        for new, old in KERAS_1.items():
            if new in options:
                options[old] = "tf" if new == "data_format" else options.pop(new)
                options.pop(new, None)
        if layer["class_name"] == "Conv2D":
            layer["class_name"] = "Convolution2D"
        if layer["class_name"] == "Add":
            layer["class_name"] = "Merge"
            options |= {"mode": "sum", "concat_axis": -1}
        if layer["class_name"] == "BatchNormalization":
            options |= {"axis": -1, "mode": 0}
        layer["inbound_nodes"] = [[reference[:3] for reference in node] for node in layer["inbound_nodes"]]


def test_keras_1_whole_models(files, tmp_path):
    name = "keras2/krasserm_model"
    path = edited(files, tmp_path, lambda file: edit_config(file, in_keras_1_spelling), name)
    generator = load_keras_generator(path, "unit:tanh")
    assert error(generator, files / f"{name}.npz", "bytes", "bytes") < 1e-5


@pytest.mark.parametrize(
    "kind, option, value",
    [
        ("Conv2D", "border_mode", "valid"),
        ("Conv2D", "subsample", [2, 2]),
        ("Conv2D", "dim_ordering", "th"),
        ("Add", "mode", "concat"),
        ("BatchNormalization", "mode", 1),
    ],
)
def test_keras_1_whole_models_of_another_wiring(files, tmp_path, kind, option, value):
    def edit(model):
        layer = next(layer for layer in model["config"]["layers"] if layer["class_name"] == kind)
        in_keras_1_spelling(model)
        layer["config"][option] = value

    refuse(edited(files, tmp_path, lambda file: edit_config(file, edit), "keras2/krasserm_model"), "SRGAN")


# ---------------------------------------------------------------- the range of the values


@pytest.mark.parametrize("name", [name for name in GENERATORS if FORMS[form(name)][0]])
def test_a_range_that_is_not_stated_is_asked_for(files, name):
    said = refuse(path_of(files, name), "--value-range", values=None)
    assert all(word in said for word in ("signed", "unit", "bytes", "tanh", "sigmoid"))


def test_every_pair_of_ranges(files):
    """The value ranges only change the conversions before and after the convolutions."""
    path = files / "keras3/paper.weights.h5"
    keras = np.load(files / "keras3/paper.weights.npz")
    for range_in in RANGES:
        for range_out in RANGES:
            y = load_keras_generator(path, f"{range_in}:{range_out}").forward(convert(keras["x"], range_in, "signed"))
            np.testing.assert_allclose(y, convert(keras["y"], range_out, "signed"), rtol=1e-4, atol=1e-4)
    for output, function in {"tanh": np.tanh, "sigmoid": lambda y: 2 / (1 + np.exp(-y)) - 1}.items():
        y = load_keras_generator(path, f"signed:{output}").forward(keras["x"])
        np.testing.assert_allclose(y, function(keras["y"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("values", ["", "x", ":unit", "tanh", "unit:unit:unit", "0:1", "Unit", "unit tanh"])
def test_ranges_that_are_none(files, values):
    with pytest.raises(UserError) as caught:
        load_keras_generator(files / "keras3/paper.weights.h5", values)
    assert all(word in str(caught.value) for word in ("signed", "unit", "bytes", "tanh", "sigmoid"))


@pytest.mark.parametrize(
    "name, values",
    [
        ("keras2/rescaling_model", "bytes:tanh"),
        ("keras2/rescaling_model", "unit:sigmoid"),
        ("keras3/rescaling_trained", "signed"),
        ("keras3/sigmoid_model", "unit:tanh"),
        ("keras3/nobias_model", "signed:unit"),
    ],
)
def test_a_range_that_contradicts_the_file(files, name, values):
    refuse(files / f"{name}.h5", "states", values)


# ---------------------------------------------------------------- unsupported files


@pytest.mark.parametrize(
    "name, words",
    [
        ("keras2/misfit_prelu_weights", "(6, 5, 2), not (1, 1, 2)"),
        ("keras2/misfit_kernel_weights", "(5, 5, 2, 2), not (3, 3, 2, 2)"),
        ("keras3/misfit_kernel.weights", "(5, 5, 2, 2), not (3, 3, 2, 2)"),
        ("keras2/misfit_block_weights", "missing"),
        ("keras3/nested.weights", "models within a model, which have no order"),
        ("keras2/mlp_weights", "no generator"),
        ("keras3/mlp_model", "no generator"),
        ("keras2/discriminator_weights", "enerator"),
        ("keras3/discriminator.weights", "enerator"),
    ],
)
def test_misfits(files, name, words):
    refuse(files / f"{name}.h5", words)


@pytest.mark.parametrize("name", [name for name in NAMES if not re.search("discriminator|nested.w", name)])
def test_what_is_no_discriminator(files, name):
    with pytest.raises(UserError, match="no discriminator"):
        load_keras_discriminator(path_of(files, name))


def names(item: h5py.HLObject, attribute: str) -> list[str]:
    return [name if isinstance(name, str) else name.decode() for name in item.attrs[attribute].tolist()]


def kinds(file: h5py.File) -> dict[str, list[str]]:
    """Return the names of the layers of a weights file by kind, in order."""
    found: dict[str, list[str]] = {}
    for name in names(file, "layer_names"):
        ranks = tuple(file[name][weight].ndim for weight in names(file[name], "weight_names"))
        found.setdefault({(4, 1): "conv", (1, 1, 1, 1): "norm", (3,): "prelu"}.get(ranks, "none"), []).append(name)
    return found


def place(file: h5py.File, kind: str = "conv", layer: int = 1, weight: int = 0) -> str:
    """Return the path of one array; the default is the kernel of the second convolution."""
    name = kinds(file)[kind][layer]
    return f"{name}/{names(file[name], 'weight_names')[weight]}"


def replace(file: h5py.File, *arguments, kind: str = "conv", layer: int = 1, weight: int = 0, **options) -> None:
    """Replace one dataset by another."""
    path = place(file, kind, layer, weight)
    del file[path]
    file.create_dataset(path, *arguments, **options)


def drop(file: h5py.File, name: str) -> None:
    file.attrs["layer_names"] = [layer for layer in names(file, "layer_names") if layer != name]
    del file[name]


def add(file: h5py.File, name: str, *arrays: np.ndarray) -> None:
    group = file.create_group(name)
    for i, array in enumerate(arrays):
        group[f"{name}/{i}"] = array
    group.attrs["weight_names"] = [f"{name}/{i}" for i in range(len(arrays))]
    file.attrs["layer_names"] = [*names(file, "layer_names"), name]


def edited(files: Path, tmp_path: Path, edit, name: str = "keras2/krasserm_weights") -> Path:
    """Return a copy of one of Keras' files after ``edit`` has changed it."""
    path = tmp_path / "edited.h5"
    shutil.copy(files / f"{name}.h5", path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def test_one_message_lists_all_that_is_missing_extra_or_misshaped(files, tmp_path):
    def edit(file):
        replace(file, data=np.zeros(5, np.float32), weight=1)
        replace(file, data=np.zeros(7, np.float32), kind="norm", layer=0, weight=2)
        drop(file, kinds(file)["prelu"][-1])
        add(file, "attention", np.zeros((2, 2, 2, 2, 2), np.float32))
        add(file, "dense_99", np.zeros((4, 4), np.float32), np.zeros(4, np.float32))

    said = refuse(edited(files, tmp_path, edit), "upscale.1.prelu")
    assert said.count("missing") == 1 and said.count("extra") == 2
    for words in ("(5,), not (4,)", "(7,), not (4,)", "attention", "(2, 2, 2, 2, 2)", "dense_99"):
        assert words in said


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_floats_of_any_width(files, tmp_path, dtype):
    def convert_all(file):
        arrays = {}
        file.visititems(lambda path, item: arrays.update({path: item[()]} if isinstance(item, h5py.Dataset) else {}))
        for path, array in arrays.items():
            del file[path]
            file[path] = array.astype(dtype)

    path = edited(files, tmp_path, convert_all)
    limit = 2e-2 if dtype == "float16" else 1e-5
    generator = load_keras_generator(path, "unit:tanh")
    assert error(generator, files / "keras2/krasserm_weights.npz", "bytes", "bytes") < limit


# ---------------------------------------------------------------- hostile files


def attribute(name: str, value, **options):
    """Return a function that sets this attribute of the root."""

    def edit(file):
        file.attrs.pop(name, None)
        file.attrs.create(name, value, **options)

    return edit


def weight_names(value, **options):
    """Return a function that sets these weight names of the second convolution."""

    def edit(file):
        group = file[kinds(file)["conv"][1]]
        del group.attrs["weight_names"]
        group.attrs.create("weight_names", value, **options)

    return edit


def instead(*arguments, **options):
    return lambda file: replace(file, *arguments, **options)


def link(make):
    def edit(file):
        path = place(file)
        target = make(file)
        del file[path]
        file[path] = target

    return edit


def own_copy(number: float, **which):
    """Return a function that changes one element of an array."""

    def edit(file):
        file[place(file, **which)][(0,) * file[place(file, **which)].ndim] = number

    return edit


def external_storage(file):
    shape = file[place(file)].shape
    replace(file, shape, np.float32, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file):
    layout = h5py.VirtualLayout(file[place(file)].shape, np.float32)
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", layout.shape)
    path = place(file)
    del file[path]
    file.create_virtual_dataset(path, layout)


def many_groups(file):
    for i in range(100_000):
        h5py.h5g.create(file.id, b"%d" % i).close()


def deep(file):
    group = file
    for _ in range(300):
        group = group.create_group("g")
    group["x"] = np.zeros(3, np.float32)


def unknown(kind: str, **options):
    return config({"class_name": kind, "config": {"name": "odd_one", **options}})


def repeated_names(file):
    """Name 90,000 arrays by 300 + 300 names; with tens of thousands of each, reading would never end."""
    attribute("layer_names", [kinds(file)["conv"][1]] * 300)(file)
    group = file[names(file, "layer_names")[0]]
    group.attrs["weight_names"] = names(group, "weight_names")[:1] * 300


def thousands_of_layers(file):
    for i in range(3000):
        file[f"{i}/x"] = np.zeros((2, 2), np.float32)
        file[str(i)].attrs["weight_names"] = ["x"]
    file.attrs["layer_names"] = [*names(file, "layer_names"), *map(str, range(3000))]


def config(*layers: dict):
    """Return a function that sets a model_config of a first and a last convolution, with other layers between."""
    convolution = {"class_name": "Conv2D", "config": {"name": "conv2d", "activation": "linear"}}
    last = {"class_name": "Conv2D", "config": {"name": "last", "activation": "tanh"}}
    model = {"class_name": "Functional", "config": {"name": "model", "layers": [convolution, *layers, last]}}
    return attribute("model_config", json.dumps(model))


def norms(**options):
    return config(*[{"class_name": "BatchNormalization", "config": {"name": "norm", **options}}] * 3)


HOSTILE = {
    # false names
    "a layer that is not there": (attribute("layer_names", ["nowhere"]), "nowhere"),
    "a layer by an absolute path": (attribute("layer_names", ["/etc/passwd"]), "passwd"),
    "a layer above": (attribute("layer_names", ["../.."]), "'../..'"),
    "a layer without a name": (attribute("layer_names", [""]), ""),
    "names that are numbers": (attribute("layer_names", [1, 2, 3]), "layer_names is not a list of names"),
    "one name": (attribute("layer_names", "conv2d"), "layer_names is not a list of names"),
    "a table of names": (attribute("layer_names", [["a"], ["b"]]), "layer_names is not a list of names"),
    "names that are no text": (attribute("layer_names", [b"\xff\xfe"]), ""),
    "names with a line break": (attribute("layer_names", ["a\nb"]), ""),
    "a very long name": (attribute("layer_names", ["x" * 30_000_000]), ""),
    "no names at all": (attribute("layer_names", np.array([], "S1")), ""),
    "a layer twice": (lambda file: attribute("layer_names", names(file, "layer_names") * 2)(file), ""),
    "a few names many times": (repeated_names, "twice"),
    "thousands of other layers": (thousands_of_layers, "extra"),
    "an array that is not there": (weight_names(["nowhere"]), "nowhere"),
    "an array by an absolute path": (weight_names(["/etc/passwd"]), "passwd"),
    "a group for an array": (weight_names(["."]), ""),
    "arrays that are numbers": (weight_names([1.5]), "weight_names is not a list of names"),
    # links to other places
    "a soft link": (link(lambda file: h5py.SoftLink("/" + place(file, layer=2))), ""),
    "a dead link": (link(lambda file: h5py.SoftLink("/nowhere")), ""),
    "another file": (link(lambda file: h5py.ExternalLink("/dev/zero", "x")), ""),
    "a circle": (link(lambda file: file["/"]), ""),
    "a virtual array": (virtual, "not stored as one plain block"),
    "an array in another file": (external_storage, "not stored as one plain block"),
    # malformed arrays
    "terabytes": (instead((2**40,), np.float32), "not (3, 3, 4, 4)"),
    "terabytes in chunks": (instead((3, 3, 2**19, 2**19), np.float32, chunks=(3, 3, 64, 64)), "not (3, 3, 4, 4)"),
    "terabytes, compressed": (instead((2**40,), np.float32, compression="gzip"), "not (3, 3, 4, 4)"),
    "compressed": (instead(data=np.zeros((3, 3, 4, 4), np.float32), compression="gzip"), "one plain block"),
    "in chunks": (instead(data=np.zeros((3, 3, 4, 4), np.float32), chunks=True), "one plain block"),
    "never written": (instead((3, 3, 4, 4), np.float32), "not stored as one plain block"),
    "terabytes in the first convolution": (instead((9, 9, 3, 2**36), np.float32, layer=0), ""),
    "whole numbers": (instead(data=np.zeros((3, 3, 4, 4), int)), "holds int64"),
    "complex numbers": (instead(data=np.zeros((3, 3, 4, 4), complex)), "holds complex128"),
    "texts": (instead(data=np.full((3, 3, 4, 4), b"x")), "holds |S1"),
    "lists": (instead((3, 3, 4, 4), h5py.vlen_dtype(np.float32)), "holds object"),
    "references": (instead((3, 3, 4, 4), h5py.ref_dtype), "holds object"),
    "records": (instead(data=np.zeros((3, 3, 4, 4), [("a", "f4"), ("b", "f4")])), "holds [('a'"),
    "nothing": (instead(data=np.zeros((3, 3, 0, 0), np.float32)), "not (3, 3, 4, 4)"),
    "an empty space": (instead(data=h5py.Empty(np.float32)), ""),
    "one number": (instead(data=np.float32(1)), ""),
    "no number": (own_copy(np.nan), "damaged"),
    "an endless number": (own_copy(-np.inf, kind="prelu"), "damaged"),
    "an endless number in float64": (
        lambda file: replace(file, data=np.full((3, 3, 4, 4), 1e300)),
        "damaged",
    ),
    "a negative variance": (own_copy(-0.5, kind="norm", weight=3), "variance"),
    # nets that are too large, and files without a net
    "65 blocks": (lambda file: [add(file, f"n{i}", *np.zeros((4, 4), np.float32)) for i in range(130)], "64"),
    "513 filters": (instead(data=np.zeros((9, 9, 3, 513), np.float32), layer=0), "512"),
    "no filters": (instead(data=np.zeros((9, 9, 3, 0), np.float32), layer=0), ""),
    "100,000 groups": (many_groups, None),
    "deep groups": (deep, None),
    # model configurations
    "no JSON": (attribute("model_config", "{"), "damaged"),
    "JSON of another kind": (attribute("model_config", "[1, 2]"), "damaged"),
    "JSON of nothing": (attribute("model_config", "null"), "damaged"),
    "JSON without layers": (attribute("model_config", '{"class_name": "Functional"}'), "damaged"),
    "layers that are a number": (attribute("model_config", '{"class_name": "x", "config": {"layers": 3}}'), "damaged"),
    "layers that are texts": (attribute("model_config", '{"class_name": "x", "config": {"layers": ["a"]}}'), "damaged"),
    "a layer without options": (
        attribute("model_config", '{"class_name": "M", "config": {"layers": [{"class_name": "Conv2D"}]}}'),
        "damaged",
    ),
    "a set-up that is a number": (attribute("model_config", 3), ""),
    "deep JSON": (attribute("model_config", '{"a":' * 300_000), ""),
    "deep models": (
        attribute("model_config", '{"class_name": "M", "config": {"layers": [' * 5000 + "]}}" * 5000),
        "",
    ),
    "100 MB of JSON": (attribute("model_config", "x" * 100_000_000), ""),
    "a set-up in pieces": (attribute("model_config", np.array([b"{", b"}"])), ""),
    "a layer of a name that is no name": (unknown("A\nB"), ""),
    "an epsilon that is a text": (norms(epsilon="x"), ""),
    "an epsilon that is none": (norms(epsilon=None), ""),
    "a rescaling that is none": (unknown("Rescaling", scale="x", offset=[]), ""),
    # statements in our own exports
    "a statement that is no JSON": (attribute("tinysrgan", "{"), "damaged"),
    "a statement of nothing": (attribute("tinysrgan", "{}"), "damaged"),
    "a statement of another range": (attribute("tinysrgan", '{"value_range": "a:b", "output": "tanh"}'), ""),
    "a statement of another output": (attribute("tinysrgan", '{"value_range": "unit:unit", "output": "x"}'), ""),
    "a statement of another kind": (attribute("tinysrgan", "[1]"), "damaged"),
}


@pytest.fixture(scope="session")
def hostile(files, tmp_path_factory) -> dict[str, Path]:
    """Write all of the hostile files."""
    folder = tmp_path_factory.mktemp("hostile")
    return {
        name: edited(files, folder, edit).rename(folder / f"{i:03}.h5")
        for i, (name, (edit, _)) in enumerate(HOSTILE.items())
    }


@pytest.mark.parametrize(
    "name",
    [name for name, (_, words) in HOSTILE.items() if words is not None],
)
def test_hostile_files(hostile, name):
    refuse(hostile[name], HOSTILE[name][1])


def test_a_heap_without_an_end(files, tmp_path):
    """HDF5 itself would loop for ever in it, and Ctrl-C would have no effect."""
    content = bytearray((files / "keras2/krasserm_weights.h5").read_bytes())
    at = content.index(b"GCOL")
    content[at + 16 : at + 32] = bytes(16)  # its first object: number 0, of size 0
    (tmp_path / "x.h5").write_bytes(content)
    refuse(tmp_path / "x.h5", "has no end")


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(5000)])
def test_hdf5s_signature_alone(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    refuse(tmp_path / "x.h5", "")


@pytest.mark.parametrize("name", ["keras2/krasserm_weights", "keras3/krasserm.weights", "keras2/krasserm_model"])
def test_cut_short_anywhere(files, tmp_path, name):
    content = (files / f"{name}.h5").read_bytes()
    for length in [*range(0, len(content), len(content) // 50), len(content) - 1]:
        (tmp_path / "cut.h5").write_bytes(content[:length])
        refuse(tmp_path / "cut.h5", "")


def test_places_that_are_no_files(tmp_path):
    refuse(tmp_path / "absent.h5", "There is no file")
    refuse(tmp_path, "is a folder")


def evil(path: Path) -> str:
    """The run leaves only its log, no checkpoint or generator."""
    code = compile(f"open({str(path)!r}, 'w')", "evil", "exec")
    return base64.b64encode(marshal.dumps(code)).decode()


@pytest.mark.parametrize("place", ["function", "module", "registered_name"])
def test_code_in_a_file_is_never_run(files, tmp_path, place):
    """Keras files have been abused through Lambda layers; here a Lambda is only a layer without weights."""
    trap = tmp_path / "trap"

    def edit(file):
        text = file.attrs["model_config"]
        model = json.loads(text)
        lambdas = [layer for layer in model["config"]["layers"] if layer["class_name"] == "Lambda"]
        for layer in lambdas:
            if place == "function":
                layer["config"]["function"] = [evil(trap), None, None]
            else:
                layer[place] = f"__import__('pathlib').Path({str(trap)!r}).touch()"
        assert len(lambdas) == 4
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(model)

    path = edited(files, tmp_path, edit, "keras2/krasserm_model")
    generator = load_keras_generator(path, "unit:tanh")
    assert error(generator, files / "keras2/krasserm_model.npz", "bytes", "bytes") < 1e-5
    assert not trap.exists()


ALL_OF_THEM = """
import sys
from pathlib import Path
from tinysrgan.core.errors import UserError
from tinysrgan.formats.keras.nets import load_keras_generator

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
for path in sys.argv[1:]:
    try:
        load_keras_generator(Path(path), "unit:tanh")
    except UserError:
        pass
    print(peak() - before)
    before = peak()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read the Linux way")
def test_hostile_files_take_little_memory(hostile):
    """Each file is read within a memory limit, even files that waste space: up to 100,000 groups may be read."""
    line = [sys.executable, "-c", ALL_OF_THEM, *map(str, hostile.values())]
    done = subprocess.run(line, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    sizes = dict(zip(HOSTILE, map(int, done.stdout.split()), strict=True))
    assert {name: size for name, size in sizes.items() if size > 300e6} == {}


# ---------------------------------------------------------------- export


@pytest.mark.parametrize(
    "config",
    [
        {"blocks": 2, "filters": 4},
        {"blocks": 1, "filters": 3, "scale": 2, "output": "tanh", "value_range": "unit:signed"},
        {"blocks": 1, "filters": 4, "scale": 8, "upscale": "nearest", "value_range": "bytes:bytes"},
        {"blocks": 3, "filters": 2, "output": "sigmoid", "value_range": "signed:unit"},
        {"blocks": 2, "filters": 3, "norm": False},
    ],
)
def test_exports_come_back_bit_for_bit(tmp_path, config):
    generator = filled(Generator(**config, seed=1))
    for save, name in ((save_keras_generator, "x.h5"), (save_keras_archive, "x.keras")):
        save(tmp_path / name, generator)
        back = load_keras_generator(tmp_path / name)
        assert back.config == generator.config
        for path, tensor in generator.tensors().items():
            np.testing.assert_array_equal(back.tensors()[path].value, tensor.value, err_msg=path)


def filled(generator: Generator) -> Generator:
    """Set all vectors to values that differ from the initial ones."""
    rng = np.random.default_rng(3)
    for path, tensor in generator.tensors().items():
        if tensor.value.ndim == 1:
            tensor.value[...] = rng.uniform(0.3, 1.5, tensor.value.shape) * (1 if "variance" in path else 0.5)
    return generator.eval()


@pytest.mark.parametrize("name", GENERATORS)
def test_keras_to_here_and_back(files, tmp_path, name):
    """The exported arrays equal Keras' own bit for bit, unless the export had to change them."""
    generator = load(files, name)
    save_keras_generator(tmp_path / "x.h5", generator)
    again = load_keras_generator(tmp_path / "x.h5")
    for path, tensor in generator.tensors().items():
        np.testing.assert_array_equal(again.tensors()[path].value, tensor.value, err_msg=path)
    if name == "keras2/paper_weights":
        with h5py.File(files / f"{name}.h5") as theirs, h5py.File(tmp_path / "x.h5") as ours:
            for a, b in zip(weights(theirs), weights(ours), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


def weights(file: h5py.File) -> list[np.ndarray]:
    """Return all arrays in the order in which Keras reads them."""
    layers = [file[name] for name in names(file, "layer_names")]
    return [layer[weight][()] for layer in layers for weight in names(layer, "weight_names")]


def make_files():
    spec = importlib.util.spec_from_file_location("make_files", KERAS / "make_files.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_files"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("upscale, scale, output", [("shuffle", 4, "tanh"), ("nearest", 2, "linear")])
def test_keras_loads_our_files(tmp_path, upscale, scale, output):
    pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    script = make_files()
    range_out = "signed" if output == "tanh" else "bytes"
    config = {"blocks": 2, "filters": 4, "scale": scale, "upscale": upscale, "output": output}
    generator = filled(Generator(**config, value_range=f"unit:{range_out}", seed=1))
    save_keras_generator(tmp_path / "x.h5", generator)
    model, _ = script.generator(script.Form(**config, range_in="unit"))
    model.load_weights(tmp_path / "x.h5")
    x = np.random.default_rng(0).uniform(0, 1, (2, 6, 5, 3)).astype(np.float32)
    low, high = RANGES[range_out]
    y = generator.forward(convert(x, "unit", "signed"))
    np.testing.assert_allclose(convert(y, "signed", range_out), model(x), rtol=0, atol=1e-4 * (high - low))
