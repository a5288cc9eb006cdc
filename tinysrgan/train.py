"""Train an SRGAN: ``python -m tinysrgan.train data/qr``.

Read ``pretrain_step`` and ``adversarial_step`` with its two parts first: they are the whole idea. ``train`` is the loop
over the batches, ``main`` the command.
"""

from __future__ import annotations

import sys

from tinysrgan.core.cli import command, taken_by
from tinysrgan.core.device import Array
from tinysrgan.layers import frozen
from tinysrgan.losses import binary_cross_entropy, mean_sigmoid, perceptual_loss
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.training.arguments import RunPaths, parse
from tinysrgan.training.config import Options
from tinysrgan.training.interrupt import stop_on_signal
from tinysrgan.training.log_words import resume_option
from tinysrgan.training.run_log import NoLog, RunLog
from tinysrgan.training.schedule import learning_rate
from tinysrgan.training.setup import Batches, prepared
from tinysrgan.training.srgan import SRGAN
from tinysrgan.training.step_graph import StepGraphs

# ---------------------------------------------------------------- the steps: images in [-1, 1], (N, height, width, 3)


def pretrain_step(srgan: SRGAN, lr: Array, hr: Array) -> dict[str, Array]:
    """Train the generator alone to match the real image pixel by pixel (the paper's SRResNet).

    A GAN that starts without this seldom settles: the discriminator wins at once.
    """
    fake = srgan.generator.forward(lr)
    loss, d_fake = srgan.pixel_loss(fake, hr)
    srgan.generator.backward(d_fake)
    srgan.parallel.average_gradients(srgan.generator)
    srgan.generator_optimizer.step()
    return {"pixel": loss}


def adversarial_step(srgan: SRGAN, lr: Array, hr: Array) -> dict[str, Array]:
    """Train the discriminator to tell fake from real, then the generator to deceive it. Returns values to log."""
    fake = srgan.generator.forward(lr)
    return discriminator_step(srgan, fake, hr) | generator_step(srgan, fake, hr)


def discriminator_step(srgan: SRGAN, fake: Array, real: Array) -> dict[str, Array]:
    """Train the discriminator on fakes, then on real images. The generator's ``backward`` is not called.

    D(fake) and D(real) are its mean probabilities of "real", before both updates. D(real) takes a forward pass of its
    own, about a twentieth of the whole step's time, so only every tenth step computes them.
    """
    probabilities = {}
    if srgan.logs_probabilities:
        with frozen(srgan.discriminator):  # so that its running statistics see these images once only
            probabilities["D(real)"] = mean_sigmoid(srgan.discriminator.forward(real))
    fake_loss, fake_logits = update_discriminator(srgan, fake, label=0)
    if probabilities:
        probabilities["D(fake)"] = mean_sigmoid(fake_logits)
    real_loss, _ = update_discriminator(srgan, real, label=1)
    return {"discriminator fake": fake_loss, "discriminator real": real_loss, **probabilities}


def update_discriminator(srgan: SRGAN, images: Array, label: float) -> tuple[Array, Array]:
    """Train the discriminator to give the images this label; returns the loss, and the logits before the update."""
    logits = srgan.discriminator.forward(images)
    loss, d_logits = binary_cross_entropy(logits, label)
    srgan.discriminator.backward(d_logits)
    srgan.parallel.average_gradients(srgan.discriminator)
    srgan.discriminator_optimizer.step()
    return loss, logits


def generator_step(srgan: SRGAN, fake: Array, real: Array) -> dict[str, Array]:
    """Train the generator: fakes should look like the real images, and the (frozen) discriminator accept them."""
    losses, d_fake = perceptual_loss(fake, real, srgan.generator_losses)
    srgan.generator.backward(d_fake)
    srgan.parallel.average_gradients(srgan.generator)
    srgan.generator_optimizer.step()
    return losses


def train(srgan: SRGAN, batches: Batches, log: RunLog | NoLog) -> bool:
    """Train to the end of the run; ``log`` shows and saves. False if Ctrl-C ended it before."""
    options = srgan.options
    with stop_on_signal() as stopped, single_threaded_blas(), log, StepGraphs(srgan) as run_step:
        for step, lr, hr in batches:
            srgan.set_learning_rate(learning_rate(step, options))
            losses = run_step(pretrain_step if step < options.pretrain_steps else adversarial_step, lr, hr)
            srgan.average.update(srgan.generator_optimizer.steps)
            log.step(step + 1, srgan.parallel.average_losses(losses))
            if srgan.parallel.any(stopped()):
                log.save(step + 1)
                return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """``python -m tinysrgan.train``: 0 when done, 2 for a mistake of the user's, 130 after Ctrl-C."""
    return command(
        lambda: run(*parse(arguments)),
        stopped="stopped at once. A checkpoint that was saved before is as it was.",
        no_memory="There is too little memory for this; try a smaller --batch-size, --hr-size or --filters.",
    )


def run(paths: RunPaths, options: Options) -> int:
    """Train, and say where the results are."""
    with prepared(paths, options) as (srgan, batches, log):
        if train(srgan, batches, log):
            log.finish()
            return 0
    with taken_by(sys.stdout):
        print(f"\nStopped, and all is saved. Go on with: python -m tinysrgan.train {resume_option(paths.out)}")
    return 130


if __name__ == "__main__":
    sys.exit(main())
