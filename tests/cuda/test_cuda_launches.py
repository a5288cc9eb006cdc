"""How many kernels a training step launches. Each costs the CPU 5 to 30 microseconds, more than most take on a GPU.

Counted on the stand-in for CuPy, with the presets' own sizes; nothing is computed. The table may only shrink. Captured
as a CUDA graph (``training.step_graph``), each of these steps is one launch.
"""

import numpy as np
import pytest
from cuda_on_cpu.cupy_on_cpu import counting, cupy_on_cpu

from tinysrgan.models import VGG19
from tinysrgan.train import adversarial_step, pretrain_step
from tinysrgan.training.config import PRESETS, Options
from tinysrgan.training.srgan import SRGAN
from tinysrgan.training.step_graph import StepGraphs

MOST = 600  # without CUDA graphs
# (our kernels, CuPy's) by preset and step. The adversarial step is one that does not read D(real), as nine of ten.
LAUNCHES = {
    ("qr", pretrain_step): (184, 9),
    ("qr", adversarial_step): (395, 13),
    ("photo", pretrain_step): (184, 9),
    ("photo", adversarial_step): (395, 13),
    ("article", pretrain_step): (295, 17),
    ("article", adversarial_step): (533, 28),
    ("paper", pretrain_step): (294, 17),
    ("paper", adversarial_step): (570, 28),
}


def launches(step, cupy, srgan: SRGAN) -> list[tuple[int, int, int]]:
    """The launches of three equal steps: ours, CuPy's, and CUDA graphs'. The first fills the caches."""
    o, take, found = srgan.options, StepGraphs(srgan), []
    lr, hr = (cupy.empty((o.batch_size, side, side, 3), np.float32) for side in (o.hr_size // o.scale, o.hr_size))
    for _ in range(3):
        srgan.discriminator_optimizer.steps = 2
        with counting() as count:
            take(step, lr, hr)
        found.append((count.own.total(), count.cupy.total(), count.graphs))
    return found


@pytest.mark.cpu_only
@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_launches_as_many_kernels_as_the_table_says(preset):
    options = Options(preset=preset, **PRESETS[preset])
    vgg = None if options.content_loss == "pixels" else VGG19(options.content_loss)
    with cupy_on_cpu() as cupy:
        srgan = SRGAN.build(options, vgg, cupy)
        for step in (pretrain_step, adversarial_step):
            (_, _, without), (*found, graph), replayed = launches(step, cupy, srgan)
            assert (without, graph) == (0, 1) and replayed == (0, 0, 1)
            found, table = tuple(found), LAUNCHES[preset, step]
            assert sum(found) <= MOST
            assert sum(found) <= sum(table), f"{step.__name__} launches {found}, more than {table}"
            assert found == table, f"{step.__name__} launches {found}: put that into the table instead of {table}"
