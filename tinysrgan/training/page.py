"""index.html of a run: pictures as a slider over the steps, curves, options. One file that needs no network."""

from __future__ import annotations

import base64
import html
import json
import math
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from tinysrgan.training.log_file import CLOCKS, read_rows
from tinysrgan.training.log_words import resume_option

PICTURES = 12  # at most; each is some 150 KB


def page(folder: Path, step: int, total: int, options: dict[str, Any]) -> str:
    """The page of the run in a folder, from its log.csv and pictures. ``options``: by name, to be shown."""
    paths = sorted((folder / "pictures").glob("step-*.png"))
    chosen = sorted({round(i) for i in np.linspace(0, len(paths) - 1, PICTURES)}) if paths else []
    pictures = [(int(paths[i].stem.removeprefix("step-")), _data_uri(paths[i])) for i in chosen]
    rows = read_rows(folder / "log.csv", step)
    names = dict.fromkeys(name for row in rows for name in row if name not in CLOCKS)
    columns = {name: [_number(row.get(name, "")) for row in rows] for name in ("step", *names)}
    drawn = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    return Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).substitute(
        title=html.escape(str(folder)),
        step=step,
        total=total,
        resume=html.escape(f"python -m tinysrgan.train {resume_option(folder)}"),
        latest=max(0, len(pictures) - 1),
        options="".join(f"<tr><td>{_words(name)}<td>{html.escape(str(value))}" for name, value in options.items()),
        pictures=json.dumps(pictures),
        columns=json.dumps(drawn).replace("<", "\\u003c"),  # a column's name must not end the script
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _number(text: str) -> float | None:
    """A finite number, to be drawn; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
