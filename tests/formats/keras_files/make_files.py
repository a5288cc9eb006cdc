"""Makes the Keras files that the tests read, with the installed Keras: 2 (TensorFlow up to 2.15) or 3.

    python make_files.py                      writes the files of this Keras version beside this script
    python make_files.py check FILE.h5 FORM   loads weights into Keras' model of a form, and compares its output with
                                              the output for the form's own weights

A form is one model: an architecture, the value range of its images, and weights. NumPy draws the weights, so every
Keras version gives a form the same ones. Each file comes with an .npz: ``x`` is an input, ``y`` is Keras' output.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RANGES = {"bytes": (0.0, 255.0), "unit": (0.0, 1.0), "signed": (-1.0, 1.0)}


@dataclass(frozen=True)
class Form:
    """A generator as Keras users write it; the defaults are the paper's, with convolutions only.

    ``range_in``: the value range of ``x``. ``first``, ``last``: "lambda" or "rescaling" layers around the
    convolutions, whose inputs are then in [0, 1] and outputs in [-1, 1]. ``output``: "linear", "tanh" or "sigmoid",
    in the last convolution or (``own_layer``) after it. ``names``: "automatic" or "odd". ``bias``: in the
    convolutions before a batch norm. ``nested``: the net is one layer of an outer model, which rescales from and to
    0..255. ``wiring``: a difference from SRGAN's wiring, see WRONG and SAME. ``activations``: "prelu" everywhere,
    "relu", "mixed" (PReLU, ReLU in a convolution, LeakyReLU after the upsampling) or "edsr" (ReLU in the blocks, none
    elsewhere). ``norm``: whether there are batch norms. ``ends``: the kernel size of the first and last convolution.
    """

    blocks: int = 1
    filters: int = 2
    scale: int = 2
    upscale: str = "shuffle"
    range_in: str = "signed"
    first: str = ""
    last: str = ""
    output: str = "linear"
    own_layer: bool = False
    names: str = "automatic"
    epsilon: float = 1e-3
    bias: bool = True
    nested: bool = False
    misfit: str = ""
    wiring: str = ""
    activations: str = "prelu"
    norm: bool = True
    ends: int = 9


# Wirings that have the same arrays as SRGAN's generator but compute something else.
WRONG = {
    "upsampling_first": "upsampling before the convolution",
    "bilinear": "bilinear upsampling",
    "scaled": "what a block adds is scaled by 0.1, in a Lambda layer",
    "scaled_operator": "the same, by the operator *",
    "preactivation": "batch norm, PReLU, convolution in the blocks",
    "no_skip": "blocks that add nothing",
    "no_long_skip": "nothing added behind the blocks",
    "early_skip": "the long skip starts before the first PReLU",
    "average": "the mean of a block's input and output",
    "prelu_first": "PReLU before batch norm",
    "relu_after_add": "a ReLU behind each block",
    "relu": "a ReLU in a convolution",
    "valid": "no padding in the last convolution",
    "global_skip": "the upsampled image is added to the output",
    "lambda_upsampling": "bilinear upsampling by Python code",
}
# Wirings that are written in another way but compute the same.
SAME = {
    "idle": "layers that do nothing at inference",
    "own_layer": "pixel shuffle as a layer class of the user's",
    "operators": "additions by +, and the image rescaled by operators",
    "parts": "residual blocks as models, an upscaling block as a Sequential, one Lambda layer that is called twice",
    "sequential": "the net as a layer of a Sequential",
}
NEAREST = ("upsampling_first", "bilinear", "lambda_upsampling")
WIRINGS = {
    name: Form(
        blocks=2 if name == "parts" else 1,
        scale=4 if name == "parts" else 2,
        upscale="nearest" if name in NEAREST else "shuffle",
        range_in="bytes" if name in ("operators", "sequential") else "signed",
        output="linear" if name == "valid" else "tanh",
        wiring=name,
    )
    for name in WRONG | SAME
}

FORMS = WIRINGS | {
    "article": Form(blocks=2, filters=4, scale=4, upscale="nearest", range_in="bytes"),
    "article_x2": Form(filters=8, upscale="nearest", range_in="bytes", names="odd"),
    "krasserm": Form(filters=4, scale=4, range_in="bytes", first="lambda", last="lambda", output="tanh"),
    "paper": Form(blocks=3, filters=3, scale=4, names="odd"),  # conv2d_10 comes after conv2d_9
    "rescaling": Form(
        range_in="bytes", first="rescaling", last="rescaling", output="tanh", own_layer=True, epsilon=1e-5
    ),
    "nobias": Form(bias=False, output="tanh", names="odd"),
    "nested": Form(range_in="bytes", output="tanh", nested=True),
    "unit": Form(range_in="unit"),
    "sigmoid": Form(filters=16, range_in="unit", output="sigmoid"),
    "mixed": Form(blocks=2, filters=3, upscale="nearest", output="tanh", activations="mixed"),
    "relu_everywhere": Form(blocks=2, filters=3, activations="relu"),
    "no_norm": Form(blocks=2, filters=3, scale=4, norm=False),
    "edsr": Form(blocks=3, filters=4, scale=4, range_in="unit", norm=False, activations="edsr", ends=3),
    "misfit_prelu": Form(misfit="prelu"),
    "misfit_block": Form(misfit="block"),
    "misfit_kernel": Form(misfit="kernel"),
}

# ---------------------------------------------------------------- models


class Chain:
    """Records Keras layers in the order of their application and names them according to the form."""

    def __init__(self, odd_names: bool):
        self.odd_names = odd_names
        self.layers: list[Any] = []

    def __call__(self, kind: Callable[..., Any], x: Any, *arguments: Any, **options: Any) -> Any:
        if self.odd_names:  # neither in alphabetical order nor with the layer's kind
            count = len(self.layers)
            options["name"] = f"{'zyxw'[count % 4]}{(37 * count + 11) % 101}_stage.{count % 3}"
        self.layers.append(kind(*arguments, **options))
        return self.layers[-1](x)


def scaled(layers: Any, tensor: Any, way: str, factor: float, offset: float) -> Any:
    """Apply factor x + offset as a Rescaling layer, or as a Lambda, which whole models save as byte code."""
    if way == "rescaling":
        return layers.Rescaling(factor, offset)(tensor)
    return layers.Lambda(anonymous(lambda x: x * factor + offset))(tensor) if way == "lambda" else tensor


def shuffle(x: Any) -> Any:
    import tensorflow as tf

    return tf.nn.depth_to_space(x, 2)


def resize(x: Any) -> Any:
    import tensorflow as tf

    return tf.image.resize(x, 2 * tf.shape(x)[1:3])


def own_shuffle() -> Any:
    import tensorflow as tf

    class DepthToSpace(tf.keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.nn.depth_to_space(x, 2)

    return DepthToSpace()


def anonymous(function: Any) -> Any:
    """Remove the path of this file from a function, because Keras would write it into the model."""
    function.__code__ = function.__code__.replace(co_filename="make_files.py")
    return function


def generator(form: Form) -> tuple[Any, list[Any]]:
    """Return Keras' model, and its layers with weights in forward order."""
    import tensorflow as tf

    layers = tf.keras.layers
    chain = Chain(form.names == "odd")
    size = (6, 5) if form.misfit == "prelu" else (None, None)
    wide = 4 * form.filters

    def conv(x: Any, outputs: int, size: int = 3, padding: str = "same", **options: Any) -> Any:
        return chain(layers.Conv2D, x, outputs, size, padding=padding, **options)

    def norm(x: Any) -> Any:
        return x if not form.norm else chain(layers.BatchNormalization, x, momentum=0.5, epsilon=form.epsilon)

    def prelu(x: Any, place: str = "block", **options: Any) -> Any:
        if form.activations == "relu" or (form.activations, place) == ("edsr", "block"):
            return layers.ReLU()(x) if place == "block" else layers.Activation("relu")(x)
        if form.activations == "edsr":
            return x
        if (form.activations, place) == ("mixed", "upscale"):
            return layers.LeakyReLU(0.2)(x)
        return chain(layers.PReLU, x, **({"shared_axes": [1, 2]} | options))

    def double(x: Any) -> Any:
        if form.upscale == "shuffle":
            return own_shuffle()(x) if wiring == "own_layer" else layers.Lambda(anonymous(shuffle))(x)
        if wiring == "lambda_upsampling":
            return layers.Lambda(anonymous(resize))(x)
        return layers.UpSampling2D(2, interpolation="bilinear" if wiring == "bilinear" else "nearest")(x)

    def add(x: Any, y: Any) -> Any:
        if wiring == "operators":
            return x + y
        return (layers.Average() if wiring == "average" else layers.Add())([x, y])

    def block(x: Any) -> Any:
        start = x
        if wiring == "preactivation":
            x = conv(prelu(norm(x)), form.filters)
            x = conv(norm(x), form.filters)
        elif wiring == "prelu_first":
            x = norm(prelu(conv(x, form.filters)))
            x = norm(conv(x, form.filters))
        else:
            x = conv(x, form.filters, 5 if form.misfit == "kernel" else 3, use_bias=form.bias)
            x = prelu(norm(x))
            if wiring == "idle":
                x = layers.Activation("linear")(layers.SpatialDropout2D(0.2)(layers.GaussianNoise(0.1)(x)))
            if form.misfit != "block":
                x = norm(conv(x, form.filters, use_bias=form.bias))
        if wiring == "no_skip":
            return x
        if wiring == "scaled":
            x = layers.Lambda(anonymous(lambda x: x * 0.1))(x)
        if wiring == "scaled_operator":
            x = x * 0.1
        x = add(start, x)
        return layers.ReLU()(x) if wiring == "relu_after_add" else x

    def inner(x: Any, function: Callable[[Any], Any], channels: int) -> Any:
        """Wrap the layers that ``function`` applies in a model within the model."""
        start = layers.Input((*size, channels))
        return tf.keras.Model(start, function(start))(x)

    wiring = form.wiring
    image = layers.Input((*size, 3))
    x = scaled(layers, image, form.first, 1 / 255, 0.0)
    if wiring == "operators":
        x = x / 127.5 - 1
    relu = {"activation": "relu"} if form.activations == "mixed" else {}
    x = first = conv(x, form.filters, form.ends, **relu)
    x = trunk = x if relu else prelu(x, "head", **({"shared_axes": None} if form.misfit == "prelu" else {}))
    for _ in range(form.blocks):
        x = inner(x, block, form.filters) if wiring == "parts" else block(x)
    x = norm(conv(x, form.filters, use_bias=form.bias))
    if wiring != "no_long_skip":
        x = add(x, first if wiring == "early_skip" else trunk)
    shared = layers.Lambda(anonymous(shuffle)) if wiring == "parts" else None
    for _ in range(form.scale.bit_length() - 1):
        if shared:
            upscale = tf.keras.Sequential([layers.Input((*size, form.filters)), layers.Conv2D(wide, 3, padding="same")])
            chain.layers.append(upscale.layers[-1])
            x = prelu(shared(upscale(x)))
        elif wiring == "upsampling_first":
            x = prelu(conv(double(x), wide))
        else:
            x = conv(x, wide, **({"activation": "relu"} if wiring == "relu" else {}))
            x = prelu(double(x), "upscale")
    own_activation = form.own_layer or wiring == "idle"
    x = conv(
        x,
        3,
        form.ends,
        activation="linear" if own_activation else form.output,
        padding="valid" if wiring == "valid" else "same",
    )
    if wiring == "idle":
        x = layers.Dropout(0.3)(x)
    if own_activation:
        x = layers.Activation(form.output)(x)
    if wiring == "global_skip":
        x = add(x, layers.UpSampling2D(form.scale)(image))
    if wiring == "operators":
        x = x * 127.5 + 127.5
    model = tf.keras.Model(image, scaled(layers, x, form.last, 127.5, 127.5))
    if form.nested:
        image = layers.Input((*size, 3))
        x = model(scaled(layers, image, "rescaling", 1 / 127.5, -1.0))
        model = tf.keras.Model(image, scaled(layers, x, "rescaling", 127.5, 127.5))
    if wiring == "sequential":
        rescalings = layers.Rescaling(1 / 127.5, -1.0), layers.Rescaling(127.5, 127.5)
        model = tf.keras.Sequential([layers.Input((*size, 3)), rescalings[0], model, rescalings[1]])
    return model, chain.layers


# Discriminators: the paper's, with slope 0.3 after convolutions, and others; wrong wirings from "pooled" on.
DISCRIMINATORS = ("", "slope3", "slope3_everywhere", "slopes", "in_options", "pooled", "relu", "first_strides")


def discriminator(kind: str, filters: int, dense: int, size: int = 32) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    layers = tf.keras.layers
    chain = Chain(odd_names=False)

    def leaky(x: Any, slope: float = 0.3 if kind.startswith("slope3") else 0.2) -> Any:
        return layers.LeakyReLU(slope)(x)

    image = layers.Input((size, size, 3))
    if kind == "in_options":
        x = chain(layers.Conv2D, image, filters, 3, padding="same", activation=layers.LeakyReLU(0.2))
    else:
        x = leaky(chain(layers.Conv2D, image, filters, 3, padding="same"))
    for block in range(1, 8):
        stride = 1 + (block + (kind == "first_strides")) % 2
        x = chain(layers.Conv2D, x, filters * 2 ** (block // 2), 3, strides=stride, padding="same")
        x = chain(layers.BatchNormalization, x, momentum=0.8)
        x = leaky(x, block / 10) if kind == "slopes" else leaky(x)
    x = (layers.GlobalAveragePooling2D() if kind == "pooled" else layers.Flatten())(x)
    if kind == "relu":
        x = chain(layers.Dense, x, dense, activation="relu")
    else:
        x = leaky(chain(layers.Dense, x, dense), 0.3 if kind == "slope3_everywhere" else 0.2)
    if kind == "in_options":
        x = layers.Dropout(0.4)(x)
    x = chain(layers.Dense, x, 1, activation="sigmoid")
    return tf.keras.Model(image, x), chain.layers


def unrelated() -> tuple[Any, list[Any]]:
    """Return two dense layers, which have nothing in common with SRGAN."""
    import tensorflow as tf

    layers = tf.keras.layers
    chain = Chain(odd_names=False)
    start = layers.Input((7,))
    return tf.keras.Model(start, chain(layers.Dense, chain(layers.Dense, start, 5), 2)), chain.layers


# ---------------------------------------------------------------- weights


def fill(layers: list[Any], rng: np.random.Generator) -> None:
    """Set weights that are nowhere trivial and keep the scale of the values through the net."""
    for layer in layers:
        shapes = [tuple(value.shape) for value in layer.get_weights()]
        kind = type(layer).__name__
        if kind == "BatchNormalization":  # gamma, beta, mean, variance
            low_high = [(0.5, 1.0), (-0.3, 0.3), (-0.5, 0.5), (0.3, 2.0)]
            values = [rng.uniform(*ends, shape) for ends, shape in zip(low_high, shapes, strict=True)]
        elif kind == "PReLU":
            values = [rng.uniform(-0.2, 0.6, shapes[0])]
        else:  # kernel, perhaps bias
            fan_in = np.prod(shapes[0][:-1])
            values = [rng.normal(0, (fan_in / 2) ** -0.5, shapes[0])] + [
                rng.normal(0, 0.1, shape) for shape in shapes[1:]
            ]
        layer.set_weights([value.astype(np.float32) for value in values])


def build(name: str) -> tuple[Any, np.ndarray]:
    """Return Keras' model of a form with its weights, and an input for it."""
    rng = np.random.default_rng(list(name.encode()))
    if name == "mlp":
        model, layers = unrelated()
        x = rng.normal(size=(2, 7))
    elif name.startswith("discriminator"):
        kind = name.removeprefix("discriminator").removeprefix("_")
        model, layers = discriminator(kind, *((4, 16) if kind in ("", "slope3") else (1, 4)))
        x = (rng.integers(0, 256, (3, 4, 4, 3)) / 127.5 - 1).repeat(8, axis=1).repeat(8, axis=2)
    else:
        model, layers = generator(FORMS[name])
        low, high = RANGES[FORMS[name].range_in]
        x = low + (high - low) * rng.integers(0, 256, (2, 6, 5, 3)) / 255
    fill(layers, rng)
    return model, x.astype(np.float32)


# ---------------------------------------------------------------- files


def trained(model: Any, x: np.ndarray) -> Any:
    """Take one step of Adam with a learning rate that changes nothing, so that the file contains Adam's slots."""
    weights = model.get_weights()
    model.compile("adam", "mse")
    model.train_on_batch(x, model.predict(x, verbose=0) * 0.9)
    model.set_weights(weights)
    return model


def write(folder: Path, name: str, file: str) -> None:
    """Write one file and its .npz; the ending of its name selects the format."""
    import tensorflow as tf

    model, x = build(name)
    if "trained" in file:
        trained(model, x)
    if "weights" in file:
        model.save_weights(folder / file)
    else:
        tf.keras.models.save_model(model, folder / file)
    if not name.startswith(("misfit", "mlp")):
        np.savez(folder / f"{Path(file).stem}.npz", x=x, y=model.predict(x, verbose=0))


def write_all() -> None:
    import keras
    import tensorflow as tf

    version = keras.__version__
    own = next(share for share in FILES if version.startswith(share.removeprefix("keras")))
    wanted = (own, *(f"{kind}{own.removeprefix('keras')}" for kind in ("wirings", "archives")))
    for share in [share for share in FILES if share in wanted]:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(HERE / f"{share}.zip", "w") as archive:
            for file, name in FILES[share].items():
                write(Path(folder), name, file)
            for path in sorted(Path(folder).iterdir()):  # without times, so equal files give equal archives
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
        print(f"{share}.zip is written by Keras {version}, TensorFlow {tf.__version__}, NumPy {np.__version__}")


FILES = {
    "keras2": {
        "article_weights.h5": "article",
        "krasserm_weights.h5": "krasserm",
        "krasserm_model.h5": "krasserm",
        "paper_weights.h5": "paper",
        "rescaling_model.h5": "rescaling",
        "nobias_weights.h5": "nobias",
        "nested_model.h5": "nested",
        "unit_trained.h5": "unit",
        "discriminator_weights.h5": "discriminator",
        "misfit_prelu_weights.h5": "misfit_prelu",
        "misfit_block_weights.h5": "misfit_block",
        "misfit_kernel_weights.h5": "misfit_kernel",
        "mlp_weights.h5": "mlp",
    },
    "keras3.0": {
        "article.weights.h5": "article",
        "paper.weights.h5": "paper",
        "nobias_model.h5": "nobias",
    },
    "keras3": {
        "article.weights.h5": "article",
        "article_x2_model.h5": "article_x2",
        "krasserm.weights.h5": "krasserm",
        "paper.weights.h5": "paper",
        "rescaling_trained.h5": "rescaling",
        "nobias.weights.h5": "nobias",
        "nobias_model.h5": "nobias",
        "nested_model.h5": "nested",
        "nested.weights.h5": "nested",
        "sigmoid_model.h5": "sigmoid",
        "discriminator.weights.h5": "discriminator",
        "discriminator_slope3_model.h5": "discriminator_slope3",
        "misfit_kernel.weights.h5": "misfit_kernel",
        "mlp_model.h5": "mlp",
    },
    "archives3": {
        "mixed_model.h5": "mixed",
        "relu_everywhere_model.h5": "relu_everywhere",
        "no_norm_model.h5": "no_norm",
        "no_norm.weights.h5": "no_norm",
        "edsr_model.h5": "edsr",
    }
    | {f"{name}.keras": name for name in ("article", "krasserm", "paper", "nested", "parts", "mixed", "edsr")},
}
DISCRIMINATOR_WIRINGS = [f"discriminator_{kind}" for kind in DISCRIMINATORS[2:]]
FILES["wirings3"] = {f"{name}_model.h5": name for name in [*WIRINGS, *DISCRIMINATOR_WIRINGS]}
FILES["wirings2"] = {f"{name}_model.h5": name for name in [*SAME, *list(WRONG)[:7], *DISCRIMINATOR_WIRINGS[:2]]}
FILES["wirings3"]["idle.keras"] = "idle"

# ---------------------------------------------------------------- the other direction


def check(file: Path, name: str) -> None:
    """Print the difference between Keras' outputs with the weights of ``file`` and with the form's own weights.

    The weights are loaded into a model with Keras' default epsilon and with all biases, like tinysrgan's.
    """
    model, x = build(name)
    expected = model.predict(x, verbose=0)
    model, _ = generator(replace(FORMS[name], epsilon=1e-3, bias=True))
    model.load_weights(file)
    y = model.predict(x, verbose=0)
    print(f"{file} as {name}: differs by up to {np.abs(y - expected).max():.2g}, of {np.ptp(expected):.3g}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        check(Path(sys.argv[2]), sys.argv[3])
    else:
        write_all()
