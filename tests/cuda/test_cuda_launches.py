"""How many kernels a training step launches. Each costs the CPU 5 to 30 microseconds, more than most take on a GPU.

Counted on the stand-in for CuPy, with the presets' own sizes; nothing is computed. The table may only shrink.
"""

import numpy as np
import pytest
from cuda_on_cpu.cupy_on_cpu import counting, cupy_on_cpu

from tinysrgan.models import VGG19
from tinysrgan.train import adversarial_step, pretrain_step
from tinysrgan.training.config import PRESETS, Options
from tinysrgan.training.srgan import SRGAN

MOST = 600  # without CUDA graphs
# (our kernels, CuPy's) by preset and step. The adversarial step is one that does not read D(real), as nine of ten.
LAUNCHES = {
    ("qr", pretrain_step): (182, 9),
    ("qr", adversarial_step): (393, 13),
    ("photo", pretrain_step): (182, 9),
    ("photo", adversarial_step): (393, 13),
    ("article", pretrain_step): (294, 17),
    ("article", adversarial_step): (532, 30),
    ("paper", pretrain_step): (292, 17),
    ("paper", adversarial_step): (568, 30),
}


def launches(step, cupy, srgan: SRGAN) -> tuple[int, int]:
    """The launches of a step, ours and CuPy's, after a first one that fills the caches."""
    o = srgan.options
    lr, hr = (cupy.empty((o.batch_size, side, side, 3), np.float32) for side in (o.hr_size // o.scale, o.hr_size))
    for _ in range(2):
        srgan.discriminator_optimizer.steps = 2
        with counting() as found:
            step(srgan, lr, hr)
    return found.own.total(), found.cupy.total()


@pytest.mark.cpu_only
@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_launches_as_many_kernels_as_the_table_says(preset):
    options = Options(preset=preset, **PRESETS[preset])
    vgg = None if options.content_loss == "pixels" else VGG19(options.content_loss)
    with cupy_on_cpu() as cupy:
        srgan = SRGAN.build(options, vgg, cupy)
        for step in (pretrain_step, adversarial_step):
            found, table = launches(step, cupy, srgan), LAUNCHES[preset, step]
            assert sum(found) <= MOST
            assert sum(found) <= sum(table), f"{step.__name__} launches {found}, more than {table}"
            assert found == table, f"{step.__name__} launches {found}: put that into the table instead of {table}"
