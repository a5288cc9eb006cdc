"""The learning rate over the steps of a run."""

from __future__ import annotations

import math

from tinysrgan.training.config import Options


def learning_rate(step: int, options: Options) -> float:
    """The optimizers' learning rate at a step of the whole run; each phase has its own.

    "cosine" warms up for 50 steps and then falls to 0; "step" is the paper's: a tenth in the second half of the
    adversarial phase; "none" is constant.
    """
    pretraining = step < options.pretrain_steps
    rate = options.pretrain_learning_rate if pretraining else options.learning_rate
    done = step if pretraining else step - options.pretrain_steps
    total = options.pretrain_steps if pretraining else options.steps
    if options.decay == "cosine":
        return rate * min(1.0, (done + 1) / 50) * (1 + math.cos(math.pi * done / total)) / 2
    if options.decay == "step" and not pretraining and done >= total / 2:
        return rate / 10
    return rate
