"""Train an SRGAN: ``python -m tinysrgan.train data/qr``.

Read ``pretrain_step``, ``adversarial_step`` and the two steps that it is made of first: they are the whole idea.
``train`` takes them through the data; ``main`` is the command.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from tinysrgan.core import device
from tinysrgan.core.atomic_write import claimed
from tinysrgan.core.cli import command, taken_by
from tinysrgan.core.device import Array
from tinysrgan.core.errors import UserError
from tinysrgan.data.camera import Camera
from tinysrgan.data.dataset import BatchSource, ImagePairs
from tinysrgan.data.division import begin, resume
from tinysrgan.data.prefetch import prefetch
from tinysrgan.data.synthetic import SyntheticCodes
from tinysrgan.formats import checkpoint
from tinysrgan.formats.vgg19_weights import vgg19_or_reason
from tinysrgan.losses import binary_cross_entropy, perceptual_loss, sigmoid
from tinysrgan.models import VGG19, Generator
from tinysrgan.ops import exact
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.training.arguments import RunPaths, parse
from tinysrgan.training.config import Options, augmentation
from tinysrgan.training.interrupt import stop_on_signal
from tinysrgan.training.run_log import Report
from tinysrgan.training.srgan import SRGAN

# ---------------------------------------------------------------- the steps: images in [-1, 1], (N, height, width, 3)


def pretrain_step(srgan: SRGAN, lr: Array, hr: Array) -> dict[str, Array]:
    """Teach the generator alone to come close to the real image, pixel by pixel (the paper's SRResNet).

    A GAN that starts without this seldom settles: the discriminator wins at once.
    """
    fake = srgan.generator.forward(lr)
    loss, d_fake = srgan.pixel_loss(fake, hr)
    srgan.generator.backward(d_fake)
    srgan.generator_optimizer.step()
    return {"pixel": loss}


def adversarial_step(srgan: SRGAN, lr: Array, hr: Array) -> dict[str, Array]:
    """One round of the game: the discriminator learns to tell fake from real, then the generator to deceive it."""
    fake = srgan.generator.forward(lr)
    return discriminator_step(srgan, fake, hr) | generator_step(srgan, fake, hr)


def discriminator_step(srgan: SRGAN, fake: Array, real: Array) -> dict[str, Array]:
    """Train the discriminator on fakes, then on real images, with an update after each, as the article does.

    The generator learns nothing here: its ``backward`` is not called.
    """
    results = {}
    for name, images, label in (("fake", fake, 0.0), ("real", real, 1.0)):
        logits = srgan.discriminator.forward(images)
        loss, d_logits = binary_cross_entropy(logits, label)
        srgan.discriminator.backward(d_logits)
        srgan.discriminator_optimizer.step()
        results[f"discriminator {name}"] = loss
        results[f"D({name})"] = sigmoid(logits).mean()
    return results


def generator_step(srgan: SRGAN, fake: Array, real: Array) -> dict[str, Array]:
    """Train the generator to look like the real image and to be taken for it by the (frozen) discriminator."""
    losses, d_fake = perceptual_loss(fake, real, srgan.generator_losses)
    srgan.generator.backward(d_fake)
    srgan.generator_optimizer.step()
    return losses


# ---------------------------------------------------------------- the loop


def learning_rate(step: int, options: Options) -> float:
    """The optimizers' rate at a step of the whole run; each phase has its own.

    "cosine" warms up for 50 steps and then falls to nothing; "step" is the paper's: a tenth in the second half of the
    adversarial phase; "none" stays.
    """
    pretraining = step < options.pretrain_steps
    rate = options.pretrain_rate if pretraining else options.learning_rate
    done = step if pretraining else step - options.pretrain_steps
    total = options.pretrain_steps if pretraining else options.steps
    if options.decay == "cosine":
        return rate * min(1.0, (done + 1) / 50) * (1 + math.cos(math.pi * done / total)) / 2
    if options.decay == "step" and not pretraining and done >= total / 2:
        return rate / 10
    return rate


def train(srgan: SRGAN, pairs: BatchSource, options: Options, module: ModuleType, start: int, report: Report) -> bool:
    """Train from step ``start`` to the end of the run; False if Ctrl-C ended it before.

    ``report`` shows and saves. Raises UserError where memory runs out, and at the first loss that is not finite, before
    anything of that step is saved.
    """
    steps = range(start, options.pretrain_steps + options.steps)
    batches = prefetch(lambda step: pairs.batch(step, options.batch_size), steps)
    unread: list[tuple[int, dict[str, Array]]] = []
    with stop_on_signal() as stopped, single_threaded_blas(), report:
        for step, (lr, hr) in zip(steps, batches, strict=True):
            take_step = pretrain_step if step < options.pretrain_steps else adversarial_step
            rate = learning_rate(step, options)
            note_colour(srgan.generator, hr)
            srgan.generator_optimizer.learning_rate = srgan.discriminator_optimizer.learning_rate = rate
            try:
                losses = take_step(srgan, device.to_device(lr, module), device.to_device(hr, module))
            except MemoryError as error:  # CuPy's is one too
                raise UserError(
                    f"There is too little memory for --batch-size {options.batch_size} at --hr-size {options.hr_size}; "
                    "try a smaller --batch-size, --hr-size or --filters."
                ) from error
            unread.append((step + 1, losses))
            # To read a number off a GPU is to wait for it. So there, its next steps are queued meanwhile.
            if module is np or stopped() or report.is_due(step + 1):
                for done, losses in unread:
                    report.step(done, finite(losses, done))
                unread.clear()
            if stopped():
                report.save(step + 1)
                return False
    return True


def note_colour(generator: Generator, images: np.ndarray) -> None:
    """Keep in the generator's config whether it was trained on grey images alone; images: (N, H, W, 3)."""
    generator.config["grey"] = generator.config["grey"] and bool((images == images[..., :1]).all())


def finite(losses: dict[str, Array], step: int) -> dict[str, float]:
    """The losses as plain numbers. Raises UserError, naming them and the step, if one is not finite."""
    numbers = {name: float(loss) for name, loss in losses.items()}
    bad = [name for name, number in numbers.items() if not math.isfinite(number)]
    if bad:
        raise UserError(
            f"Training stopped at step {step}: not finite: {', '.join(bad)}. Take a smaller --pretrain-rate or "
            "--learning-rate; if there is a checkpoint, it is as it was, and --resume goes on from it."
        )
    return numbers


# ---------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """``python -m tinysrgan.train``: 0 when done, 2 for a mistake of the user's, 130 after Ctrl-C."""
    return command(
        lambda: start(*parse(arguments)),
        stopped="stopped at once. A checkpoint that was saved before is as it was.",
        no_memory="There is too little memory for this; try a smaller --batch-size, --hr-size or --filters.",
    )


def start(call: RunPaths, options: Options, given: set[str]) -> int:
    """``run``, with the folder for the results held against other processes."""
    with claimed(call.out, call.numbered) as call.out:
        return run(call, options, given)


def run(call: RunPaths, options: Options, given: set[str]) -> int:
    """Set up what the options ask for, train it, and say where the results are."""
    module, where = device.choose_device(call.device)
    if call.resume:
        images = resume(call.data, options.limit, options.fresh_codes, call.resume)
    else:
        images = begin(call.data, options.limit, options.fresh_codes, call.generator)
    pairs: BatchSource
    if options.fresh_codes:
        camera = Camera() if options.augment == "camera" else None
        pairs = SyntheticCodes(options.hr_size, options.scale, augmentation(options), options.seed, camera)
    else:
        pairs = ImagePairs(images.training, options.hr_size, options.scale, augmentation(options), options.seed)
    if options.epochs is not None:
        options.steps = options.epochs * max(1, len(pairs) // options.batch_size)
    total = options.pretrain_steps + options.steps
    if call.start > total or (call.start == total and (not call.resume or has_ended(call.out, total))):
        raise UserError(f"{call.out} has done its {call.start} steps: give it more with --steps.")

    vgg = find_vgg(options, call.vgg, required="content" in given or call.resume is not None)
    srgan = SRGAN.build(options, vgg, module)
    if call.resume:
        srgan.load(call.resume)
    if call.generator:
        checkpoint.load(call.generator, {"generator": srgan.generator}, {})
    what = "fresh QR codes" if options.fresh_codes else f"{len(images.training)} images"
    with taken_by(sys.stdout):
        print(f"{what} to train on, {len(images.held_out)} held out, {where}. Results: {call.out}")

    held_out = ImagePairs(images.held_out, options.hr_size, options.scale)
    report = Report(call, options, srgan, pairs, held_out, module, images.division)
    with exact(options.exact):
        if train(srgan, pairs, options, module, call.start, report):
            report.finish()
            return 0
    with taken_by(sys.stdout):
        print(f"\nStopped, and all is saved. Go on with: python -m tinysrgan.train --resume {call.out}")
    return 130


def has_ended(folder: Path, total: int) -> bool:
    """Whether a run of so many steps got as far as its generator: a kill may have come after the last checkpoint."""
    generator = folder / "generator.h5"
    return generator.exists() and checkpoint.read_state(generator).get("step") == total


def find_vgg(options: Options, path: Path | None, required: bool) -> VGG19 | None:
    """VGG19 cut where the content loss wants it; None if that compares pixels.

    Where its weights are not to be had, a preset's wish for them gives way to pixels, with a notice. Raises UserError,
    with the place to put the file, where they were asked for by name.
    """
    if options.content == "pixels":
        return None
    vgg, reason = vgg19_or_reason(options.content, path)
    if vgg is None and required:
        raise UserError(reason)
    if vgg is None:
        print(f"{reason} Training SRGAN-MSE instead: its content loss compares pixels.", file=sys.stderr)
        options.content = "pixels"
    return vgg


if __name__ == "__main__":
    sys.exit(main())
