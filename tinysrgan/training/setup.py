"""Prepare a run: its device, images, nets and log."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType

import numpy as np

from tinysrgan.core.atomic_write import claimed
from tinysrgan.core.cli import say, taken_by
from tinysrgan.core.device import Array, to_device
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.data.camera import Camera
from tinysrgan.data.dataset import BatchSource, ImagePairs, JudgedPairs
from tinysrgan.data.division import begin, resume
from tinysrgan.data.own_codes import PhotographedCodes
from tinysrgan.data.photographs import Crops, WholePhotographs
from tinysrgan.data.prefetch import prefetch
from tinysrgan.data.synthetic import SyntheticCodes
from tinysrgan.formats import checkpoint
from tinysrgan.formats.generator_files import read_generator
from tinysrgan.formats.vgg19_weights import vgg19_or_reason
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.folder_kind import folder_kind
from tinysrgan.models import VGG19
from tinysrgan.ops import exact
from tinysrgan.ops.device import choose_device
from tinysrgan.training.arguments import RunPaths
from tinysrgan.training.config import Options, augmentation
from tinysrgan.training.data_parallel import DataParallel
from tinysrgan.training.run_log import NoLog, RunLog
from tinysrgan.training.saving import load
from tinysrgan.training.srgan import SRGAN

JUDGED = 256  # pixels: the middle of each held-out photograph is judged at every save
# The threads that make batches for a GPU, which computes a step faster than one thread makes a batch. On the CPU there
# is one, because the step itself uses all cores. The batches are the same.
FEEDERS = 4
Batches = Iterator[tuple[int, Array, Array]]


@contextmanager
def prepared(paths: RunPaths, options: Options) -> Iterator[tuple[SRGAN, Batches, RunLog | NoLog]]:
    """All that a run needs, in a folder that no other process writes to meanwhile. Raises UserError."""
    leads = ranks().rank == 0
    with claimed(paths.out, paths.numbered) if leads else nullcontext(paths.out) as paths.out, exact(options.exact):
        yield prepare(paths, options)


def prepare(paths: RunPaths, options: Options) -> tuple[SRGAN, Batches, RunLog | NoLog]:
    """Make everything that the options ask for. Raises UserError."""
    module, where = choose_device(paths.device)
    if paths.resume:
        images = resume(paths.data, options.max_images, options.synthetic, paths.resume)
    else:
        images = begin(paths.data, options.max_images, options.synthetic, paths.init_from)
    if ranks().first(images.division) != images.division:
        raise UserError(f"{paths.data} holds other images here, on {socket.gethostname()}, than where rank 0 runs.")
    for_codes = options.preset == "qr" and options.augment != "crops" and not options.synthetic
    kind = folder_kind(images.training, options.hr_size) if for_codes and not paths.resume else "codes"
    if kind == "photographs":
        say(f"{paths.data} holds photographs, and the preset qr is for QR codes: give --preset photo.")
    if kind == "small":
        say(
            f"Most images of {paths.data} are smaller than {options.hr_size}x{options.hr_size} and are enlarged: give "
            "the sharp originals, of which training makes the blurred ones itself, or a smaller --hr-size."
        )
    pairs = training_pairs(images.training, options)
    if options.epochs is not None:
        options.steps = options.epochs * max(1, len(pairs) // options.batch_size)
    total = options.pretrain_steps + options.steps
    run = paths.resume.parent if paths.resume else paths.out
    if paths.start > total or (paths.start == total and (not paths.resume or has_ended(run, total))):
        raise UserError(f"{run} has done {what_is_done(paths.start, len(pairs), options)}.")

    srgan = SRGAN.build(options, find_vgg(options, paths), module)
    if paths.resume:
        load(srgan, paths.resume)
    if paths.init_from:
        source = read_generator(paths.init_from, paths.value_range)
        for name, tensor in srgan.generator.tensors().items():
            tensor.value[...] = to_device(source.tensors()[name].value, module)
        srgan.generator.config["grey"] = source.config["grey"]
    what = "synthetic QR codes" if options.synthetic else f"{len(images.training)} images"
    with taken_by(sys.stdout):
        where += f", in {ranks().size} processes" * (ranks().size > 1)
        print(f"{what} to train on, {len(images.held_out)} held out, {where}. Results: {paths.out}")

    srgan.share(DataParallel(ranks(), options.batch_size))
    log: RunLog | NoLog = NoLog(srgan)
    if ranks().rank == 0:
        held_out: JudgedPairs = ImagePairs(images.held_out, options.hr_size, options.scale)
        if options.augment == "crops":
            held_out = WholePhotographs(images.held_out, options.scale, JUDGED)
        log = RunLog(paths, options, srgan, pairs, held_out, module, images.division)
    return srgan, batches(range(paths.start, total), pairs, srgan, module), log


def training_pairs(paths: list[Path], options: Options) -> BatchSource:
    """What the run trains on. Raises UserError if the options contradict each other."""
    size, scale, augment, seed = options.hr_size, options.scale, augmentation(options), options.seed
    if options.synthetic:
        return SyntheticCodes(size, scale, augment, seed, Camera() if options.augment == "camera" else None)
    if options.augment == "crops":
        return Crops(paths, size, scale, seed)
    if options.augment == "camera":
        if not qr_reader.available():
            raise UserError(qr_reader.MISSING)
        return PhotographedCodes(paths, size, scale, augment, seed, Camera(), qr_reader.modules_of)
    return ImagePairs(paths, size, scale, augment, seed)


def batches(steps: range, pairs: BatchSource, srgan: SRGAN, module: ModuleType) -> Batches:
    """The number of each step with its LR and HR, float32 (N, height, width, 3) in [-1, 1] on the device.

    Under mpiexec, N is this rank's share of the batch.
    """
    size, parallel, known = srgan.options.batch_size, srgan.parallel, 0
    workers = 1 if module is np else FEEDERS
    made = prefetch(lambda step: pairs.batch(step, size, parallel.slice), steps, workers)
    for step, (lr, hr) in zip(steps, made, strict=True):
        note_colour(srgan, hr)
        if parallel.any(len(pairs.skipped) > known):  # rank 0 tells of them
            for skipped in parallel.ranks.gather({**pairs.skipped}):
                pairs.skipped |= skipped
            known = len(pairs.skipped)
        yield step, to_device(lr, module), to_device(hr, module)


def note_colour(srgan: SRGAN, images: np.ndarray) -> None:
    """Keep in the generator's config whether all images it was trained on are grey; images: (N, H, W, 3)."""
    grey = srgan.generator.config["grey"] and not srgan.parallel.any(bool((images != images[..., :1]).any()))
    for generator in (srgan.generator, srgan.average.net):
        generator.config["grey"] = grey


def what_is_done(step: int, images: int, options: Options) -> str:
    """The steps of each phase that a run has done by ``step``, and the options that give it more."""
    pixels = min(step, options.pretrain_steps)
    adversarial = step - pixels
    more = [f"--steps above {adversarial}"]
    if options.epochs is not None:
        more = [f"--epochs above {adversarial // max(1, images // options.batch_size)}"]
    if not adversarial:
        more.insert(0, f"--pretrain-steps above {pixels}")
    return f"{pixels} steps on pixels and {adversarial} adversarial ones: for more, give {' or '.join(more)}"


def has_ended(folder: Path, total: int) -> bool:
    """Whether a run of so many steps has written its generator: it may have been killed after the last checkpoint."""
    generator = folder / "generator.h5"
    return generator.exists() and checkpoint.read_state(generator).get("step") == total


def find_vgg(options: Options, paths: RunPaths) -> VGG19 | None:
    """VGG19 up to the layer of the content loss; None if that compares pixels.

    Without weights, fall back to the pixel loss with a notice. If VGG19 was requested by name, raise UserError instead,
    with the place to put the file.
    """
    if options.content_loss == "pixels":
        return None
    vgg, reason = vgg19_or_reason(options.content_loss, paths.vgg_weights)
    if vgg is None and paths.needs_vgg:
        raise UserError(reason)
    if vgg is None:
        print(f"{reason} Training SRGAN-MSE instead: its content loss compares pixels.", file=sys.stderr)
        options.content_loss = "pixels"
    return vgg
