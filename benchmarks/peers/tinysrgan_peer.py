"""The benchmark in tinysrgan: the steps of ``tinysrgan.train``, and the upscaler that ``tinysrgan.load()`` returns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import tinysrgan
from benchmarks.cases import DENSE, LEARNING_RATE, SCALE, VGG_LAYER, Case
from tinysrgan.inference.upscaler import Upscaler
from tinysrgan.models import VGG19, Generator
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.train import discriminator_step, generator_step, pretrain_step
from tinysrgan.training.config import Options
from tinysrgan.training.srgan import SRGAN

NAME = f"tinysrgan {tinysrgan.__version__}, NumPy {np.__version__}"


def prepare(case: Case, layout: str = "") -> Callable[[], object]:
    """The function to time."""
    rng = np.random.default_rng(0)
    if case.work == "inference":
        upscaler = Upscaler(Generator(case.blocks, case.filters, SCALE, case.upscale, seed=0), "cpu")
        pixels = rng.integers(0, 256, (case.size, case.size, 3), np.uint8)
        return lambda: upscaler(pixels)

    srgan = build(case)
    lr = rng.uniform(-1, 1, (case.batch, case.size, case.size, 3)).astype(np.float32)
    hr = rng.uniform(-1, 1, (case.batch, case.hr_size, case.hr_size, 3)).astype(np.float32)

    def step() -> None:
        with single_threaded_blas():  # as the training loop does
            if case.work == "pretrain":
                pretrain_step(srgan, lr, hr)
                return
            fake = srgan.generator.eval().forward(lr)
            discriminator_step(srgan, fake, hr)
            generator_step(srgan, srgan.generator.train().forward(lr), hr)

    return step


def build(case: Case) -> SRGAN:
    """The nets, losses and optimizers of a training step."""
    options = Options(
        hr_size=case.hr_size,
        blocks=case.blocks,
        filters=case.filters,
        upscale=case.upscale,
        discriminator_filters=case.filters,
        discriminator_dense=DENSE,
    )
    srgan = SRGAN.build(options, VGG19(VGG_LAYER) if case.work == "adversarial" else None, np)
    srgan.generator_optimizer.learning_rate = srgan.discriminator_optimizer.learning_rate = LEARNING_RATE
    return srgan
