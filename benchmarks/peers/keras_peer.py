"""The benchmark in Keras on TensorFlow, structured like the article's code.

The discriminator is a compiled model; generator, discriminator and VGG19 together are another. ``train_on_batch``
trains each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from keras import Model, layers

from benchmarks.cases import DENSE, LEARNING_RATE, SCALE, Case

NAME = f"Keras {keras.__version__}, TensorFlow {tf.__version__}"


def conv(x: Any, filters: int, kernel_size: int = 3, stride: int = 1) -> Any:
    return layers.Conv2D(filters, kernel_size, stride, padding="same")(x)


def norm(x: Any) -> Any:
    return layers.BatchNormalization()(x)


def prelu(x: Any) -> Any:
    return layers.PReLU(shared_axes=[1, 2])(x)


def pixel_shuffle(x: Any) -> Any:
    return layers.Lambda(lambda x: tf.nn.depth_to_space(x, 2))(x)


def generator(case: Case) -> Model:
    f = case.filters
    image = layers.Input((case.size, case.size, 3))
    head = x = prelu(conv(image, f, 9))
    for _ in range(case.blocks):
        x = layers.add([x, norm(conv(prelu(norm(conv(x, f))), f))])
    x = layers.add([head, norm(conv(x, f))])
    for _ in range(SCALE.bit_length() - 1):
        x = conv(x, 4 * f)
        x = prelu(pixel_shuffle(x) if case.upscale == "shuffle" else layers.UpSampling2D(2)(x))
    return Model(image, conv(x, 3, 9))


def discriminator(case: Case) -> Model:
    f = case.filters
    image = layers.Input((case.hr_size, case.hr_size, 3))
    x = layers.LeakyReLU(negative_slope=0.2)(conv(image, f))
    for i, filters in enumerate((f, 2 * f, 2 * f, 4 * f, 4 * f, 8 * f, 8 * f)):
        stride = 2 if i % 2 == 0 else 1
        x = layers.LeakyReLU(negative_slope=0.2)(norm(conv(x, filters, stride=stride)))
    x = layers.LeakyReLU(negative_slope=0.2)(layers.Dense(DENSE)(layers.Flatten()(x)))
    return Model(image, layers.Dense(1)(x))


def vgg19(size: int) -> Model:
    """VGG19 up to block3_conv4."""
    net = keras.applications.VGG19(weights=None, include_top=False, input_shape=(size, size, 3))
    net = Model(net.input, net.layers[10].output)
    net.trainable = False
    return net


def prepare(case: Case, mode: str = "") -> Callable[[], object]:
    """The function to time."""
    rng = np.random.default_rng(0)
    lr = rng.random((case.batch, case.size, case.size, 3), np.float32)
    hr = rng.random((case.batch, case.hr_size, case.hr_size, 3), np.float32)
    g = generator(case)
    if case.work == "inference":
        g.compile()
        return lambda: g.predict_on_batch(lr)
    if case.work == "pretrain":
        g.compile(keras.optimizers.Adam(LEARNING_RATE), "mse")
        return lambda: g.train_on_batch(lr, hr)

    d, vgg = discriminator(case), vgg19(case.hr_size)
    g.compile()
    vgg.compile()
    fake_label, real_label = np.zeros((case.batch, 1), np.float32), np.ones((case.batch, 1), np.float32)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    d.compile(keras.optimizers.Adam(LEARNING_RATE), cross_entropy)
    d.train_on_batch(hr, real_label)  # Keras 3 fixes what it trains when it first traces the model
    d.trainable = False
    lr_input, hr_input = layers.Input(lr.shape[1:]), layers.Input(hr.shape[1:])
    fake_output = g(lr_input)
    both = Model([lr_input, hr_input], [d(fake_output), vgg(fake_output)])
    both.compile(keras.optimizers.Adam(LEARNING_RATE), [cross_entropy, "mse"], loss_weights=[1e-3, 1])

    def adversarial_step() -> None:
        fake = g.predict_on_batch(lr)
        d.train_on_batch(fake, fake_label)
        d.train_on_batch(hr, real_label)
        both.train_on_batch([lr, hr], [real_label, vgg.predict_on_batch(hr)])

    return adversarial_step
