"""Whole training steps with the CUDA kernels, run on the CPU, against the same steps in NumPy."""

import csv
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu, no_reading

from tinysrgan import ops
from tinysrgan.core.device import array_module, to_device
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.listing import find_images
from tinysrgan.formats import checkpoint
from tinysrgan.inference.upscaler import Upscaler
from tinysrgan.layers import BatchNorm
from tinysrgan.models import VGG19, Generator
from tinysrgan.ops.cuda.convolution import rung
from tinysrgan.train import adversarial_step, main, pretrain_step
from tinysrgan.training import setup
from tinysrgan.training.config import Options, augmentation
from tinysrgan.training.srgan import SRGAN

pytestmark = pytest.mark.kernels

OPTIONS = {
    "shuffle": Options(
        hr_size=16, blocks=1, filters=8, discriminator_filters=4, discriminator_dense=16, content_loss="vgg"
    ),
    "nearest": Options(
        hr_size=16,
        blocks=1,
        filters=4,
        upscale="nearest",
        discriminator_filters=4,
        discriminator_dense=8,
        content_loss="vgg",
    ),
}
OPTIONS["muon"] = replace(OPTIONS["shuffle"], optimizer="muon")


def build(options, module) -> SRGAN:
    srgan = SRGAN.build(options, VGG19("block1_conv2"), module)
    for optimizer in (srgan.generator_optimizer, srgan.discriminator_optimizer):
        optimizer.learning_rate = 1e-3
        # Adam's first steps turn gradients that are pure rounding error into full steps, unless epsilon is above them.
        optimizer.epsilon = 1e-3
    return srgan


def images(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.fixture
def exactly():
    with ops.exact():
        yield


@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_step_equals_numpy_s(name, exactly):
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
            (expected.generator_optimizer, srgan.generator_optimizer),
            (expected.discriminator_optimizer, srgan.discriminator_optimizer),
        ):
            # The moments are sums of gradients. The gradient of a bias before batch-norm is pure rounding error, hence
            # the second term.
            largest = max(np.abs(m).max() for m in adam.m.values())
            for key, m in adam.m.items():
                assert array_module(other.m[key]) is cupy
                far = np.abs(other.m[key].get() - m).max()
                assert far <= 1e-3 * np.abs(m).max() + 1e-6 * largest, key
        for net in (srgan.generator, srgan.discriminator):
            assert all(np.isfinite(tensor.value.get()).all() for tensor in net.tensors().values())


@pytest.mark.tensor_cores
def test_a_training_step_on_tensor_cores_is_close_to_numpy_s():
    """Factors have 10 bits: long sums have smaller relative errors than that, small differences larger ones."""
    options = Options(
        hr_size=16, blocks=1, filters=32, discriminator_filters=32, discriminator_dense=16, content_loss="vgg"
    )
    lr, hr = images(1, 4), images(2, 16)
    expected = build(options, np)
    losses = pretrain_step(expected, lr, hr)
    gradients = {name: m.copy() for name, m in expected.generator_optimizer.m.items()}
    losses |= adversarial_step(expected, lr, hr)
    with cupy_on_cpu() as cupy:
        srgan = build(options, cupy)
        assert rung((2, 4, 4, 32), (3, 3, 32, 32), 1, np.dtype(np.float32)) == "conv_tf32"
        lr, hr = to_device(lr, cupy), to_device(hr, cupy)
        found = pretrain_step(srgan, lr, hr)
        far = [np.abs(m.get() - gradients[name]).max() for name, m in srgan.generator_optimizer.m.items()]
        found |= adversarial_step(srgan, lr, hr)
    for key, loss in losses.items():
        assert float(found[key]) == pytest.approx(float(loss), rel=0.1), key
    largest = [np.abs(m).max() for m in gradients.values()]
    rounding = 2**-11  # half a unit in the last of 10 bits
    assert rounding / 20 < np.median(np.array(far) / largest) < 10 * rounding


@pytest.mark.parametrize("upscale", ["shuffle", "nearest"])
def test_upscaling_equals_numpy_s(upscale, exactly):
    generator = Generator(2, 8, 4, upscale, seed=3)
    for layer in generator.layers():
        if isinstance(layer, BatchNorm):
            layer.running_mean.value += 0.1
            layer.running_variance.value *= 1.5
    image = np.random.default_rng(4).integers(0, 256, (9, 13, 3), np.uint8)
    expected = Upscaler(generator, "cpu")(image)
    with cupy_on_cpu():
        on_gpu = Upscaler(generator, "cuda")
        assert "on the GPU" in on_gpu.where
        assert np.abs(on_gpu(image).astype(int) - expected).max() <= 1


@pytest.mark.cpu_only
def test_out_of_memory_on_the_gpu_is_one_sentence(tmp_path, capsys, monkeypatch):
    data = str(Path(__file__).parents[2] / "data" / "qr")
    size = "--hr-size 32 --limit 6 --blocks 1 --filters 4 --batch-size 2 --device cuda".split()
    with cupy_on_cpu() as cupy:
        empty = cupy.empty

        def fail(shape, *arguments, **options):
            """Small arrays, such as those of the probe for a device, still fit."""
            if np.prod(shape) > 3000:
                raise MemoryError("Out of memory allocating 1,000 bytes")  # CuPy's OutOfMemoryError is a MemoryError
            return empty(shape, *arguments, **options)

        monkeypatch.setattr(type(cupy), "empty", staticmethod(fail))
        assert main([data, *size, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "too little memory for this; try a smaller --batch-size" in error


def test_a_run_can_move_between_cpu_and_gpu(tmp_path, capsys):
    size = "--hr-size 32 --limit 6 --blocks 1 --filters 4 --batch-size 2 --pretrain-steps 2 --steps 2 --seed 1".split()
    data = str(Path(__file__).parents[2] / "data" / "qr")

    def losses(run: str) -> list[list[float]]:
        with open(tmp_path / run / "log.csv", newline="") as file:
            return [
                [float(row[name] or 0) for name in ("pixel", "content", "adversarial")] for row in csv.DictReader(file)
            ]

    assert main([data, *size, "--out", str(tmp_path / "cpu"), "--device", "cpu"]) == 0
    assert main([data, *size, "--out", str(tmp_path / "mixed"), "--device", "cpu", "--steps", "0"]) == 0
    with cupy_on_cpu():
        resume = ["--resume", str(tmp_path / "mixed")]
        assert main([*resume, "--device", "cuda", "--steps", "1"]) == 0
        assert "on the GPU" in capsys.readouterr().out
        generator = checkpoint.load_generator(tmp_path / "mixed" / "generator.h5")
        assert all(type(tensor.value) is np.ndarray for tensor in generator.tensors().values())
    assert main([*resume, "--device", "cpu", "--steps", "2"]) == 0
    alone, mixed = losses("cpu"), losses("mixed")
    np.testing.assert_allclose(np.array(mixed[0]), np.array(alone[0]), rtol=1e-5)
    np.testing.assert_allclose(np.mean(mixed[1:], axis=0), alone[-1], rtol=0.02)


def test_a_gpu_is_fed_by_several_threads_with_the_same_batches():
    images = find_images(Path(__file__).parents[2] / "data" / "qr")[:7]
    threads = []

    def batches(module):
        srgan = SRGAN.build(replace(OPTIONS["shuffle"], content_loss="pixels", batch_size=3), None, module)
        pairs = ImagePairs(images, 16, 4, augmentation(srgan.options), seed=5)
        made = pairs.batch
        pairs.batch = lambda *args: threads.append(threading.current_thread().name) or made(*args)
        return [
            (step, to_device(lr, np), to_device(hr, np))
            for step, lr, hr in setup.batches(range(8), pairs, srgan, module)
        ]

    expected = batches(np)
    assert len(set(threads)) == 1
    with cupy_on_cpu() as cupy:
        found = batches(cupy)
    assert 1 < len(set(threads)) <= 1 + setup.FEEDERS
    for (step, lr, hr), (other_step, other_lr, other_hr) in zip(expected, found, strict=True):
        assert step == other_step
        np.testing.assert_array_equal(other_lr, lr)
        np.testing.assert_array_equal(other_hr, hr)
