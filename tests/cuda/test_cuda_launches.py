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
PRETRAINING, ADVERSARIAL, VERDICTS = "pre-training", "adversarial", "every tenth adversarial, which reads D(real)"
STEPS = {PRETRAINING: (pretrain_step, 2), ADVERSARIAL: (adversarial_step, 2), VERDICTS: (adversarial_step, 0)}
# (our kernels, CuPy's) by preset and step.
LAUNCHES = {
    ("qr", PRETRAINING): (187, 1),
    ("qr", ADVERSARIAL): (377, 5),
    ("qr", VERDICTS): (404, 5),
    ("photo", PRETRAINING): (187, 1),
    ("photo", ADVERSARIAL): (377, 5),
    ("photo", VERDICTS): (404, 5),
    ("article", PRETRAINING): (297, 1),
    ("article", ADVERSARIAL): (521, 12),
    ("article", VERDICTS): (548, 12),
    ("paper", PRETRAINING): (297, 1),
    ("paper", ADVERSARIAL): (561, 12),
    ("paper", VERDICTS): (588, 12),
}


def launches(kind: str, cupy, srgan: SRGAN) -> list[tuple[int, int, int]]:
    """The launches of three equal steps: ours, CuPy's, and CUDA graphs'. The first fills the caches."""
    o, take, found = srgan.options, StepGraphs(srgan), []
    lr, hr = (cupy.empty((o.batch_size, side, side, 3), np.float32) for side in (o.hr_size // o.scale, o.hr_size))
    step, updates = STEPS[kind]
    for _ in range(3):
        srgan.discriminator_optimizer.steps = updates
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
        for kind in STEPS:
            (_, _, without), (*found, graph), replayed = launches(kind, cupy, srgan)
            assert (without, graph) == (0, 1) and replayed == (0, 0, 1)
            found, table = tuple(found), LAUNCHES[preset, kind]
            assert sum(found) <= MOST
            assert sum(found) <= sum(table), f"A {kind} step launches {found}, more than {table}."
            assert found == table, f"A {kind} step launches {found}: put that into the table instead of {table}."
