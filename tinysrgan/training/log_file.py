"""log.csv: the losses, scores and times of a run, a row for every few steps."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinysrgan.core.cli import taken_by, write
from tinysrgan.core.errors import UserError
from tinysrgan.formats import checkpoint

# The columns before and after those of the losses.
CLOCKS = ("step", "epoch", "phase", "seconds", "images/s")
SCORES = tuple(f"{name}{of}" for name in ("psnr", "ssim", "scan %") for of in ("", " bicubic"))


class LogFile:
    """log.csv, open for rows. Whatever values a row has get a column."""

    def __init__(self, path: Path, earlier: Path, start: int):
        """Begin the file with the rows of an ``earlier`` part of the run up to step ``start``.

        ``last`` is the step of the last row, 0 if there is none. Raises UserError if the file can't be written.
        """
        self.path = path
        rows = read_rows(earlier, start) if start else []
        self.last = int(rows[-1]["step"]) if rows else 0
        self._write_whole(rows)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row, at once. Raises UserError if that fails."""
        self.last = row["step"]
        if not row.keys() <= set(self.columns):
            self.file.close()
            self._write_whole([*read_rows(self.path, row["step"]), row])
            return
        with taken_by(self.file, self.file.name):
            csv.DictWriter(self.file, self.columns, restval="").writerow(row)

    def _write_whole(self, rows: Sequence[dict[str, Any]]) -> None:
        """Replace the file, with a column for every name that any of the rows has a value of."""
        names = dict.fromkeys(name for row in rows for name, value in row.items() if name and value)
        losses = [name for name in names if name not in CLOCKS + SCORES]
        self.columns = (*CLOCKS, *losses, *SCORES)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write(self.path, text.getvalue().encode())
        self.file = open(str(self.path), "a", newline="", encoding="utf-8")  # noqa: SIM115


def read_rows(path: Path, until: int) -> list[dict[str, str]]:
    """The complete rows of a log up to a step: a full disk may have cut one short."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    rows = [row for row in csv.DictReader(line for line in lines if line.endswith("\n")) if None not in row.values()]
    return [row for row in rows if row.get("step", "").isdecimal() and int(row["step"]) <= until]


def saved_losses(path: Path) -> dict[str, list[float]]:
    """The losses since the log's last row by name, as a checkpoint holds them; none where it is an older one."""
    saved = checkpoint.read_state(path).get("losses", {})
    try:
        return {name: [float(value) for value in values] for name, values in saved.items()}
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} is of no use: its losses are not lists of numbers.") from None
