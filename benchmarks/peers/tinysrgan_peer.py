"""The benchmark in tinysrgan: the steps of ``tinysrgan.train``, and the upscaler that ``tinysrgan.load()`` returns."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

import tinysrgan
from benchmarks.cases import LEARNING_RATE, SCALE, Case
from tinysrgan import ops
from tinysrgan.core.device import Array, to_device
from tinysrgan.inference.upscaler import Upscaler
from tinysrgan.models import VGG19, Generator
from tinysrgan.ops.device import choose_device
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.train import discriminator_step, generator_step, pretrain_step
from tinysrgan.training.config import Options
from tinysrgan.training.srgan import SRGAN
from tinysrgan.training.step_graph import StepGraphs

NAME = f"tinysrgan {tinysrgan.__version__}, NumPy {np.__version__}"
_graphs: list[StepGraphs] = []  # of this process


def prepare(case: Case, mode: str = "") -> Callable[[], object]:
    """The function to time."""
    module, _ = choose_device(case.device)
    run = layer(case, module) if case.layer else upscaling(case) if case.work == "inference" else step(case, module)

    def run_in_context() -> object:
        with single_threaded_blas(), ops.exact(case.exact):  # as the training loop does
            return run()

    return run if case.work == "inference" and not case.exact else run_in_context


def upscaling(case: Case) -> Callable[[], np.ndarray]:
    generator = Generator(case.blocks, case.filters, SCALE, case.upscale, seed=0)
    upscaler = Upscaler(generator, case.device, orientations=1)
    pixels = np.random.default_rng(0).integers(0, 256, (case.size, case.size, 3), np.uint8)
    return lambda: upscaler(pixels)


def step(case: Case, module: ModuleType) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    srgan = build(case, module)
    lr, hr = (
        to_device(rng.uniform(-1, 1, (case.batch, side, side, 3)).astype(np.float32), module)
        for side in (case.size, case.hr_size)
    )
    take = StepGraphs(srgan)  # as in training: on a GPU a CUDA graph
    _graphs.append(take)
    return lambda: take(pretrain_step if case.work == "pretrain" else adversarial_step, lr, hr)


def adversarial_step(srgan: SRGAN, lr: Array, hr: Array) -> dict[str, Array]:
    fake = srgan.generator.eval().forward(lr)
    losses = discriminator_step(srgan, fake, hr)
    return losses | generator_step(srgan, srgan.generator.train().forward(lr), hr)


def layer(case: Case, module: ModuleType) -> Callable[[], object]:
    assert case.layer
    side, c, k, r, stride = case.layer
    rng = np.random.default_rng(0)
    shapes = (case.batch, side, side, c), (r, r, c, k), (case.batch, side // stride, side // stride, k)
    x, w, dy = (to_device(rng.standard_normal(shape, np.float32), module) for shape in shapes)
    return {
        "y": lambda: ops.conv2d(x, w, stride),
        "dx": lambda: ops.conv2d_grad_input(dy, w, x.shape, stride),
        "dw": lambda: ops.conv2d_grad_weight(x, dy, w.shape, stride),
    }[case.work]


def build(case: Case, module: ModuleType = np) -> SRGAN:
    """The nets, losses and optimizers of a training step."""
    options = Options(
        hr_size=case.hr_size,
        blocks=case.blocks,
        filters=case.filters,
        upscale=case.upscale,
        discriminator_filters=case.discriminator_filters or case.filters,
        discriminator_dense=case.dense,
        optimizer=case.optimizer,
    )
    vgg = VGG19(case.content) if case.work == "adversarial" and case.content != "pixels" else None
    srgan = SRGAN.build(options, vgg, module)
    srgan.generator_optimizer.learning_rate = srgan.discriminator_optimizer.learning_rate = LEARNING_RATE
    return srgan


def wait_for_gpu() -> None:
    import cupy

    cupy.cuda.Device().synchronize()


def gpu_memory() -> int:
    """The most memory that CuPy has taken from the GPU, in bytes."""
    import cupy

    pools = [cupy.get_default_memory_pool(), *(graphs.pool for graphs in _graphs if graphs.pool)]
    return sum(pool.total_bytes() for pool in pools)
