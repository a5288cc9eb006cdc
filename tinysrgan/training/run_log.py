"""What a run shows and keeps: the progress bar, log.csv, checkpoints, pictures, and the table at the end."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from tinysrgan.core.atomic_write import remove_leftovers, write_whole
from tinysrgan.core.cli import identities, printable, spare_inputs, taken_by, write
from tinysrgan.core.errors import UserError
from tinysrgan.data.dataset import BatchSource, ImagePairs
from tinysrgan.data.division import Division
from tinysrgan.formats import checkpoint
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import encode, loss_curves
from tinysrgan.metrics.scores import Validation, table, upscale
from tinysrgan.training.arguments import RunPaths
from tinysrgan.training.config import Options
from tinysrgan.training.srgan import SRGAN

LOG_EVERY = 10
RESULTS = ("checkpoint.h5", "generator.h5", "generator-epoch-*.h5", "log.csv", "losses.png", "pictures/step-*.png")
LOSSES = ("pixel", "content", "adversarial", "discriminator fake", "discriminator real", "D(fake)", "D(real)")
SCORES = tuple(f"{name}{of}" for name in ("psnr", "ssim", "scan %") for of in ("", " bicubic"))
COLUMNS = ("step", "epoch", "phase", "seconds", "images/s", *LOSSES, *SCORES)


class Report:
    """Follows a run in its folder; a context manager, since it owns the progress bar and the open log.

    log.csv has a row for every 10 steps and for each checkpoint that --save-every or the end of a phase asks for, with
    the means of the losses since the last row, and with the validation scores at a checkpoint. However often a run is
    killed or stopped and resumed, its rows are those of an uninterrupted one, but for the times: a checkpoint also
    holds the losses since the last row, and rows beyond it are dropped.
    """

    def __init__(
        self,
        call: RunPaths,
        options: Options,
        srgan: SRGAN,
        pairs: BatchSource,
        held_out: ImagePairs,
        module: ModuleType,
        division: Division,
    ):
        self.call, self.options, self.srgan, self.module, self.division = call, options, srgan, module, division
        self.pairs, self.held_out = pairs, held_out
        self.folder, self.start = call.out, call.start
        self.total = options.pretrain_steps + options.steps
        self.steps_per_epoch = max(1, len(pairs) // options.batch_size)
        self.losses: dict[str, list[float]] = defaultdict(list)  # by name, since the last row
        self.validation = Validation(held_out, limit=48)
        self.bicubic = self.validation.score(self.validation.bicubic).row()
        self.told: set[Path] = set()
        if not qr_reader.available():
            print(f"{qr_reader.MISSING} Until then nobody looks whether the results scan.", file=sys.stderr)

    def __enter__(self) -> Self:
        self._spare_inputs()
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "pictures"):
            remove_leftovers(folder)
        earlier = self.call.resume.parent if self.call.resume else self.folder
        last = _begin_log(self.folder / "log.csv", earlier / "log.csv", self.start)
        self.log = open(str(self.folder / "log.csv"), "a", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.log, COLUMNS, restval="")
        self.bar = _progress_bar(self.start, self.total, self.options.batch_size)
        self.began = self.row_began = time.perf_counter()
        self.saved_at = self.row_step = self.start
        if self.call.resume and last < self.start:
            self.losses |= _saved_losses(self.call.resume)
            if self.losses and self._saves(self.start):  # a kill came between the checkpoint and its row
                self._show(self.start)
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.close()
        self.log.close()

    def is_due(self, done: int) -> bool:
        """Whether anything is written after step number ``done``: a row of the log at least."""
        return done % LOG_EVERY == 0 or self._saves(done) or self._keeps_generator(done)

    def _saves(self, done: int) -> bool:
        return done % self.options.save_every == 0 or done in (self.options.pretrain_steps, self.total)

    def _keeps_generator(self, done: int) -> bool:
        """Every 5 epochs, as the article does; in a small run of another preset, that is every few steps."""
        return self.options.preset == "article" and done % (5 * self.steps_per_epoch) == 0

    def _spare_inputs(self) -> None:
        """Raise UserError where a file that the run will replace is, by whatever name, one that it reads."""
        if old := [path for name in RESULTS for path in self.folder.glob(name)]:
            images = [*self.held_out.paths, *getattr(self.pairs, "paths", [])]
            inputs = identities([*images, self.call.vgg, self.call.generator])
            for path in old:
                spare_inputs(path, inputs)

    def step(self, done: int, losses: dict[str, float]) -> None:
        """Take note of the losses of step number ``done``, counted from 1; save where it is due."""
        for name, value in losses.items():
            self.losses[name].append(value)
        self.bar.set_postfix_str(describe(losses), refresh=False)
        self.bar.update(self.options.batch_size)
        if self._saves(done):
            self.save(done)
        elif done % LOG_EVERY == 0:
            self._write_row(done, {})
        if self._keeps_generator(done):
            self.save_generator(f"generator-epoch-{done // self.steps_per_epoch:03d}.h5", done)

    def save(self, done: int) -> None:
        """Write the checkpoint, then what it looks like; nothing if this step is saved already."""
        if done == self.saved_at:
            return
        self.saved_at = done
        with suppress(OSError):  # the rows so far must not be lost where the checkpoint isn't
            os.fsync(self.log.fileno())
        places = {"data": str(self.call.data.resolve()), "vgg": str(self.call.vgg.resolve()) if self.call.vgg else ""}
        state: dict[str, Any] = {"step": done, "options": asdict(self.options), "losses": self.losses}
        state |= {"images": vars(self.division)} | places
        self.srgan.save(self.folder / "checkpoint.h5", state)
        self._show(done)

    def _show(self, done: int) -> None:
        """Write the picture, the validation line and, unless this is a stop ahead of time, a row of the log."""
        sr = upscale(self.srgan.generator, self.validation.lr, self.module)
        scores = self.validation.score(sr).row()
        picture = self.folder / "pictures" / f"step-{done:06d}.png"
        picture.parent.mkdir(exist_ok=True)
        write(picture, encode(self.validation.picture(sr), picture))
        self._tell(f"step {done:>6} of {self.total}: " + beside_bicubic(scores, self.bicubic))
        if self._saves(done):
            self._write_row(done, scores | {f"{name} bicubic": value for name, value in self.bicubic.items()})
        self._tell_skipped()

    def save_generator(self, name: str, done: int) -> None:
        """Write the generator alone: what ``upscale`` and ``evaluate`` need."""
        info = {"step": done, "preset": self.options.preset, "hr_size": self.options.hr_size}
        info["images"] = vars(self.division)
        checkpoint.save_generator(self.folder / name, self.srgan.generator, info)

    def finish(self) -> None:
        """The end of a run: the generator, the table over (up to 400 of) the held-out images, and the loss curves."""
        self.save_generator("generator.h5", self.total)
        everything = Validation(self.held_out, limit=400)
        self._tell_skipped()
        sr = upscale(self.srgan.generator, everything.lr, self.module)
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
        with taken_by(sys.stdout):
            self.bar.write(line)

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
        with taken_by(self.log, self.log.name):
            self.writer.writerow(row)
        self.losses.clear()
        self.row_began, self.row_step = now, done


def describe(losses: dict[str, float]) -> str:
    """Losses by name for the progress bar; the discriminator's verdicts as probabilities."""
    short = {"adversarial": "adv", "discriminator fake": "d fake", "discriminator real": "d real"}
    return ", ".join(
        f"{short.get(name, name)} {value:.2f}" if name.startswith("D(") else f"{short.get(name, name)} {value:.3g}"
        for name, value in losses.items()
    )


def beside_bicubic(scores: dict[str, float], bicubic: dict[str, float]) -> str:
    """The validation line: each score, and bicubic's in brackets."""
    formats = {
        "psnr": "PSNR {:.2f} dB (bicubic {:.2f})",
        "ssim": "SSIM {:.3f} ({:.3f})",
        "scan %": "scans {:.0f} % ({:.0f} %)",
    }
    return ", ".join(
        text.format(scores[name], bicubic[name]) for name, text in formats.items() if not math.isnan(scores[name])
    )


def _saved_losses(path: Path) -> dict[str, list[float]]:
    """The losses since the log's last row by name, as a checkpoint holds them; none where it is an older one."""
    saved = checkpoint.read_state(path).get("losses", {})
    try:
        return {name: [float(value) for value in saved[name]] for name in LOSSES if name in saved}
    except (TypeError, ValueError):
        raise UserError(f"{path} is of no use: its losses are no lists of numbers.") from None


def _begin_log(path: Path, earlier: Path, start: int) -> int:
    """Write the header, and the rows of an earlier part of the run up to the step that it is resumed from.

    Returns the step of the last row, 0 where there is none.
    """
    rows: list[dict[str, str]] = []
    if earlier.exists() and start:
        lines = earlier.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a full disk may cut a row short
        complete = [row for row in csv.DictReader(whole) if None not in row.values()]
        rows = [row for row in complete if row.get("step", "").isdecimal() and int(row["step"]) <= start]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_whole(path, text.getvalue().encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that the user knows
    return int(rows[-1]["step"]) if rows else 0


def _progress_bar(start: int, total: int, batch_size: int) -> Any:
    """tqdm over images, or nothing but the saved lines where tqdm is missing."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(total=total * batch_size, initial=start * batch_size, unit=" images", dynamic_ncols=True, smoothing=0.1)


class _NoBar:
    """Stands in for tqdm: only ``write`` does anything."""

    def set_postfix_str(self, text: str, refresh: bool = True) -> None: ...

    def update(self, n: int) -> None: ...

    def close(self) -> None: ...

    def write(self, text: str) -> None:
        print(text, flush=True)
