"""What a run shows and keeps: the progress bar, log.csv, checkpoints, pictures, a page, and the table at the end."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import defaultdict
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from tinysrgan.core.atomic_write import remove_leftovers
from tinysrgan.core.cli import identities, printable, spare_inputs, taken_by, write
from tinysrgan.core.device import Array
from tinysrgan.core.errors import UserError
from tinysrgan.data.dataset import BatchSource, JudgedPairs
from tinysrgan.data.division import Division
from tinysrgan.data.listing import RUN_PICTURES
from tinysrgan.formats import checkpoint
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.curves import loss_curves
from tinysrgan.metrics.figures import encode
from tinysrgan.metrics.scores import Validation, table, upscale
from tinysrgan.training.arguments import RunPaths
from tinysrgan.training.config import Options
from tinysrgan.training.log_file import LogFile, saved_losses
from tinysrgan.training.log_words import beside_bicubic, describe, resume_option
from tinysrgan.training.page import page
from tinysrgan.training.saving import save
from tinysrgan.training.srgan import SRGAN

LOG_EVERY = 10
RESULTS = (
    *("checkpoint.h5", "generator.h5", "generator-epoch-*.h5"),
    *("index.html", "log.csv", *RUN_PICTURES),
)


class RunLog:
    """Follows a run in its folder; a context manager, since it owns the progress bar and the open log.

    log.csv has a row for every 10 steps and for each checkpoint that --save-every or the end of a phase asks for, with
    the means of the losses since the last row, and with the validation scores at a checkpoint. However often a run is
    killed or stopped and resumed, its rows are those of an uninterrupted one, but for the times: a checkpoint also
    holds the losses since the last row, and rows beyond it are dropped.
    """

    def __init__(
        self,
        paths: RunPaths,
        options: Options,
        srgan: SRGAN,
        pairs: BatchSource,
        held_out: JudgedPairs,
        module: ModuleType,
        division: Division,
    ):
        self.paths, self.options, self.srgan, self.module, self.division = paths, options, srgan, module, division
        self.pairs, self.held_out = pairs, held_out
        self.folder, self.start = paths.out, paths.start
        self.total = options.pretrain_steps + options.steps
        self.steps_per_epoch = max(1, len(pairs) // options.batch_size)
        self.losses: dict[str, list[float]] = defaultdict(list)  # by name, since the last row
        self.latest: dict[str, float] = {}  # of each phase
        self.unread: list[tuple[int, dict[str, Array]]] = []  # losses that may not be computed yet, with their step
        self.validation = Validation(held_out, limit=48)
        self.bicubic = self.validation.score(self.validation.bicubic).row()
        self.told: set[Path] = set()
        if not qr_reader.available():
            print(f"{qr_reader.MISSING} Until then scan rates are not measured.", file=sys.stderr)

    def __enter__(self) -> Self:
        self._spare_inputs()
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "pictures"):
            remove_leftovers(folder)
        earlier = self.paths.resume.parent if self.paths.resume else self.folder
        self.log = LogFile(self.folder / "log.csv", earlier / "log.csv", self.start)
        self.bar = tqdm(total=self.total, initial=self.start, unit=" steps", dynamic_ncols=True, smoothing=0.1)
        self.began = self.row_began = time.perf_counter()
        self.saved_at = self.row_step = self.start
        if self.paths.resume and self.log.last < self.start:
            self.losses |= saved_losses(self.paths.resume)
            if self.losses and self.options.saves(self.start):  # a kill came between the checkpoint and its row
                self._show(self.start)
        return self

    def __exit__(self, error: type[BaseException] | None, *exception: object) -> None:
        self.bar.close()
        self.log.file.close()
        if error and self.log.last <= self.start and not (self.folder / "checkpoint.h5").exists():
            self.log.path.unlink(missing_ok=True)  # nothing is there to look at or to go on with

    def _keeps_generator(self, done: int) -> bool:
        """Every 5 epochs, as the article does; in a small run of another preset, that is every few steps."""
        return self.options.preset == "article" and done % (5 * self.steps_per_epoch) == 0

    def _spare_inputs(self) -> None:
        """Raise UserError where a file that the run will replace is, by whatever name, one that it reads."""
        if old := [path for name in RESULTS for path in self.folder.glob(name)]:
            images = [*self.held_out.paths, *getattr(self.pairs, "paths", [])]
            inputs = identities([*images, self.paths.vgg_weights, self.paths.init_from])
            for path in old:
                spare_inputs(path, inputs)

    def step(self, done: int, losses: dict[str, Array]) -> None:
        """Take note of the losses of step ``done``, counted from 1; save where it is due.

        Reading a value from a GPU waits for it. So there the losses are read only when something is written, and the
        next steps are queued meanwhile. Raises UserError if a loss is not finite, before anything of its step is saved.
        """
        self.unread.append((done, losses))
        if self.module is np or done % LOG_EVERY == 0 or self.options.saves(done) or self._keeps_generator(done):
            self._read()
        if self.options.saves(done):
            self.save(done)
        elif done % LOG_EVERY == 0:
            self._write_row(done, {})
        if self._keeps_generator(done):
            self.save_generator(f"generator-epoch-{done // self.steps_per_epoch:03d}.h5", done)

    def _read(self) -> None:
        for done, losses in self.unread:
            values = finite(losses, done)
            for name, value in values.items():
                self.losses[name].append(value)
            if not values.keys() & self.latest.keys():  # the adversarial phase begins
                self.latest.clear()
            self.latest |= values
            self.bar.set_postfix_str(describe(self.latest), refresh=False)
            self.bar.update()
        self.unread.clear()

    def save(self, done: int) -> None:
        """Write the checkpoint, then what it looks like; nothing if this step is saved already."""
        if done == self.saved_at:
            return
        self._read()
        self.saved_at = done
        with suppress(OSError):  # the rows so far must not be lost where the checkpoint isn't
            os.fsync(self.log.file.fileno())
        places = {
            "data": str(self.paths.data.resolve()),
            "vgg": str(self.paths.vgg_weights.resolve()) if self.paths.vgg_weights else "",
        }
        state: dict[str, Any] = {"step": done, "options": asdict(self.options), "losses": self.losses}
        state |= {"images": vars(self.division)} | places
        save(self.srgan, self.folder / "checkpoint.h5", state)
        self._show(done)

    def _show(self, done: int) -> None:
        """Write the picture, the validation line and, unless this is a stop ahead of time, a row of the log."""
        sr = upscale(self.srgan.average.net, self.validation.lr, self.module)
        scores = self.validation.score(sr).row()
        picture = self.folder / "pictures" / f"step-{done:06d}.png"
        picture.parent.mkdir(exist_ok=True)
        write(picture, encode(self.validation.picture(sr), picture))
        self._tell(f"step {done:>6} of {self.total}: " + beside_bicubic(scores, self.bicubic))
        if self.options.saves(done):
            self._write_row(done, scores | {f"{name} bicubic": value for name, value in self.bicubic.items()})
        write(self.folder / "index.html", page(self.folder, done, self.total, asdict(self.options)).encode())
        self._tell_skipped()

    def save_generator(self, name: str, done: int) -> None:
        """Write the generator alone: what ``upscale`` and ``evaluate`` need."""
        info = {"step": done, "preset": self.options.preset, "hr_size": self.options.hr_size}
        info["images"] = vars(self.division)
        checkpoint.save_generator(self.folder / name, self.srgan.average.net, info)

    def finish(self) -> None:
        """The end of a run: the generator, the table over (up to 400 of) the held-out images, and the loss curves."""
        self.save_generator("generator.h5", self.total)
        everything = Validation(self.held_out, limit=400)
        self._tell_skipped()
        sr = upscale(self.srgan.average.net, everything.lr, self.module)
        results = {"bicubic": everything.score(everything.bicubic), "SR": everything.score(sr)}
        with taken_by(sys.stdout):
            print(f"\n{len(everything.hr)} images that were never trained on:\n{table(results)}")
        curves = self.folder / "losses.png"
        try:
            loss_curves(self.folder / "log.csv", curves)
        except (ImportError, UserError) as error:
            print(error, file=sys.stderr)
        except OSError as error:
            raise UserError(f"{curves} can't be written: {error.strerror}. All the rest is there.") from error
        made = ", ".join(sorted(path.name for path in self.folder.iterdir()))
        with taken_by(sys.stdout):
            print(f"\nEverything is in {self.folder}: {made}")

    def _tell_skipped(self) -> None:
        for path, reason in (self.pairs.skipped | self.held_out.skipped).items():
            if path not in self.told:
                self._tell(printable(f"skipped {reason}"))
                self.told.add(path)

    def _tell(self, line: str) -> None:
        try:
            with taken_by(sys.stdout):
                self.bar.write(line)
        except UserError as error:
            raise UserError(f"{error} Go on with `python -m tinysrgan.train {resume_option(self.folder)}`.") from error

    def _write_row(self, done: int, scores: dict[str, float]) -> None:
        now = time.perf_counter()
        row: dict[str, Any] = {name: f"{sum(values) / len(values):.6g}" for name, values in self.losses.items()}
        row |= {name: f"{value:.5g}" for name, value in scores.items() if not math.isnan(value)}
        row |= {
            "step": done,
            "epoch": f"{done / self.steps_per_epoch:.2f}",
            "phase": "pretrain" if done <= self.options.pretrain_steps else "gan",
            "seconds": f"{now - self.began:.1f}",
            "images/s": f"{(done - self.row_step) * self.options.batch_size / max(now - self.row_began, 1e-9):.1f}",
        }
        self.log.add(row)
        self.losses.clear()
        self.row_began, self.row_step = now, done


class NoLog(nullcontext):
    """The log of a rank that leaves all this to rank 0, but gives what it knows of a checkpoint."""

    def __init__(self, srgan: SRGAN):
        super().__init__()
        self.srgan, self.saved_at = srgan, 0

    def step(self, done: int, losses: dict[str, Array]) -> None:
        if self.srgan.options.saves(done):
            self.save(done)

    def save(self, done: int) -> None:
        """What ``RunLog.save`` does, at the same steps, without what rank 0 alone does."""
        if done != self.saved_at:
            self.saved_at = done
            save(self.srgan, Path(), {})

    def finish(self) -> None: ...


def finite(losses: dict[str, Array], step: int) -> dict[str, float]:
    """The losses as Python's floats. Raises UserError, naming them and the step, if one is not finite."""
    values = {name: float(loss) for name, loss in losses.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"Training stopped at step {step}: not finite: {', '.join(bad)}. Take a smaller --pretrain-learning-rate "
            "or --learning-rate; if there is a checkpoint, it is as it was, and --resume goes on from it."
        )
    return values
