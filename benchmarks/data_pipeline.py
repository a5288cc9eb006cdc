"""Does training wait for its data? ``python -m benchmarks.data_pipeline [FOLDER]``, about two minutes.

A separate thread augments and shrinks images ahead of the steps. It can slow a step down in two ways: the step may
have to wait for its batch, and it shares the cores with that thread. So the same steps run in turns with the pipeline
and with one batch made beforehand. All images are decoded beforehand, as they are from the second epoch on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from itertools import count, islice, repeat
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np

from tinysrgan.core.cli import real, whole
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.division import split
from tinysrgan.data.listing import find_images
from tinysrgan.data.prefetch import prefetch
from tinysrgan.models import VGG19
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.train import adversarial_step, pretrain_step
from tinysrgan.training.config import PRESETS, Options, augmentation
from tinysrgan.training.srgan import SRGAN

STARTER_SET = Path(__file__).parents[1] / "data" / "qr"
# The rows: a preset and an augmentation. The first row is the default of the command.
ROWS = (("qr", "shift"), ("qr", "article"), ("article", "article"))

Batch = tuple[np.ndarray, np.ndarray]


class Times(NamedTuple):
    """Seconds, for making a batch alone, a step with a ready batch, a step with the pipeline, and its wait."""

    batch: float
    ready: float
    fed: float
    wait: float


def measure(options: Options, folder: Path, rounds: int, seconds: float) -> Times:
    """Take steps for ``seconds`` in both ways, ``rounds`` times. Returns medians, and the mean of the waits."""
    training, _ = split(find_images(folder))
    pairs = ImagePairs(training, options.hr_size, options.scale, augmentation(options), options.seed)
    for path in training:
        pairs.sources.get(path)
    vgg = None if options.content_loss == "pixels" else VGG19(options.content_loss)
    srgan = SRGAN.build(options, vgg, np)
    steps = count()

    def make(step: int) -> Batch:
        return pairs.batch(step, options.batch_size)

    def take_step(batch: Batch) -> None:
        (pretrain_step if options.pretrain_steps else adversarial_step)(srgan, *batch)

    made, ready, fed = [], [], []
    with single_threaded_blas():
        take_step(make(next(steps)))
        for _ in range(rounds):
            for step in islice(steps, 5):
                begin = time.perf_counter()
                batch = make(step)
                made.append(time.perf_counter() - begin)
            ready += turn(take_step, repeat(batch), seconds)
            fed += turn(take_step, prefetch(make, steps), seconds)
    return Times(median(made), median(t for _, t in ready), median(t for _, t in fed), mean(t for t, _ in fed))


def turn(take_step: Callable[[Batch], None], batches: Iterable[Batch], seconds: float) -> list[tuple[float, float]]:
    """Take steps for ``seconds``. Returns (wait, total time) of each but the first, whose batch is not made ahead."""
    result = []
    begin = time.perf_counter()
    stop = begin + seconds
    for batch in batches:
        wait = time.perf_counter() - begin
        take_step(batch)
        now = time.perf_counter()
        result.append((wait, now - begin))
        begin = now
        if now > stop and len(result) > 1:
            break
    return result[1:]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_pipeline", description="Measure whether training waits for its data."
    )
    parser.add_argument("folder", type=Path, nargs="?", default=STARTER_SET, help="images (default: the starter set)")
    parser.add_argument("--rounds", type=whole(1), default=5, metavar="N", help="turns for each row (5)")
    parser.add_argument("--seconds", type=real(0), default=4, metavar="X", help="of a turn, either way (4)")
    args = parser.parse_args(arguments)
    print("| preset, augmentation | a batch, alone | step, batch ready | step with the pipeline | of it waiting |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for preset, augment in ROWS:
        times = measure(Options(**PRESETS[preset] | {"augment": augment}), args.folder, args.rounds, args.seconds)
        batch, ready, fed, wait = (1000 * seconds for seconds in times)
        print(
            f"| {preset}, {augment} | {batch:.1f} ms | {ready:.1f} ms "
            f"| {fed:.1f} ms ({100 * (fed / ready - 1):+.1f} %) | {wait:.2f} ms ({100 * wait / fed:.1f} %) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
