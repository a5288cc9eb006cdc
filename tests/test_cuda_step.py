"""Whole training steps with our own kernels, run on the CPU, beside the same steps in NumPy."""

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu, no_reading

from tinysrgan import ops
from tinysrgan.device import array_module, to_device
from tinysrgan.models import VGG19
from tinysrgan.options import Options
from tinysrgan.srgan import SRGAN
from tinysrgan.train import adversarial_step, pretrain_step

pytestmark = pytest.mark.skipif(not runner.available, reason="g++ is not installed")

OPTIONS = {
    "shuffle": Options(hr_size=16, blocks=1, filters=8, discriminator_filters=4, discriminator_dense=16, content="vgg"),
    "nearest": Options(
        hr_size=16,
        blocks=1,
        filters=4,
        upscale="nearest",
        discriminator_filters=4,
        discriminator_dense=8,
        content="vgg",
    ),
}


def build(options, module) -> SRGAN:
    srgan = SRGAN.build(options, VGG19("block1_conv2"), module)
    srgan.generator_adam.learning_rate = srgan.discriminator_adam.learning_rate = 1e-3
    return srgan


def images(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.fixture
def exactly():
    ops.exact()
    yield
    ops.exact(False)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_step_gives_numpy_s_numbers(name, exactly):
    lr, hr = images(1, 4), images(2, 16)
    expected = build(OPTIONS[name], np)
    losses = [pretrain_step(expected, lr, hr), adversarial_step(expected, lr, hr)]
    with cupy_on_cpu() as cupy:
        srgan = build(OPTIONS[name], cupy)
        lr, hr = to_device(lr, cupy), to_device(hr, cupy)
        with no_reading():
            found = [pretrain_step(srgan, lr, hr), adversarial_step(srgan, lr, hr)]
        for step, other in zip(losses, found, strict=True):
            assert step.keys() == other.keys()
            for key in step:
                assert float(other[key]) == pytest.approx(float(step[key]), rel=1e-4), key
        for adam, other in (
            (expected.generator_adam, srgan.generator_adam),
            (expected.discriminator_adam, srgan.discriminator_adam),
        ):
            # The moments are sums of gradients. What stands before a batch-norm has biases whose gradient is nothing but
            # rounding, hence the second term.
            largest = max(np.abs(m).max() for m in adam.m.values())
            for key, m in adam.m.items():
                assert array_module(other.m[key]) is cupy
                far = np.abs(other.m[key].get() - m).max()
                assert far <= 1e-3 * np.abs(m).max() + 1e-6 * largest, key
        for net in (srgan.generator, srgan.discriminator):
            assert all(np.isfinite(tensor.value.get()).all() for tensor in net.tensors().values())
