"""The curves of a training run: its log over the steps."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tinysrgan.core.errors import UserError
from tinysrgan.metrics.figures import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "Drawing curves needs the package matplotlib: install it with `pip install matplotlib`."

# The start of a column's name, in lower case, and the label of its panel. All other columns are losses.
KINDS = {"d(": "probability of real", "psnr": "PSNR, dB", "ssim": "SSIM", "scan": "codes that scan, %"}
CLOCKS = {"epoch", "seconds", "images/s"}  # not drawn
LIMITS = {"probability of real": (-0.05, 1.05), "codes that scan, %": (-5, 105)}


def loss_curves(csv_path: str | Path, png_path: str | Path) -> None:
    """Draw a training log over the steps, with a panel for each kind of value, 1000 pixels wide.

    csv_path: a CSV file with the columns ``step`` and ``phase``, and any others. Blanks, NaN and infinity are not
    drawn. A column's name decides its panel: ``D(...)`` are probabilities, ``psnr...`` and ``ssim...`` qualities,
    ``scan...`` scan rates in %, and all others losses, except for ``CLOCKS``, which are not drawn. A name that ends in
    ``bicubic`` is a baseline. A dotted line marks a change of phase.

    Raises ImportError without matplotlib, UserError if the log has no column ``step``, a field is not a number, or
    there is nothing to draw.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(MISSING) from None

    steps, phases, columns = _read_log(Path(csv_path))
    panels = _panels(columns)
    if not panels:
        raise UserError(f"{csv_path} holds no numbers to draw yet.")
    figure = Figure(figsize=(10, 0.5 + 2.3 * len(panels)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for ax, (label, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            _curve(ax, steps, columns[name], name)
        for (_, before), (step, after) in pairwise(zip(steps, phases, strict=True)):
            if before != after:
                ax.axvline(step, color="0.4", linestyle=":", label=f"{after} from here" if ax is axes[0] else None)
        _dress(ax, label)
    axes[-1].set_xlabel("step")
    figure.align_ylabels()
    canvas.draw()
    save_picture(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), png_path)


def _read_log(path: Path) -> tuple[np.ndarray, list[str], dict[str, np.ndarray]]:
    """Steps, phases and the other columns by name, float64; NaN for blank fields."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file, restval="")
        names = reader.fieldnames or ()
        table = [(reader.line_num, row) for row in reader]
    if "step" not in names:
        raise UserError(f"{path} has no column 'step': it is no training log.")
    columns = {
        name: np.array([_number(row[name], path, name, line) for line, row in table])
        for name in names
        if name != "phase"
    }
    return columns.pop("step"), [row.get("phase", "") for _, row in table], columns


def _number(text: str, path: Path, name: str, line: int) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError:
        raise UserError(f"{path}, line {line}: column '{name}' holds {text!r}, which is no number.") from None


def _panels(columns: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """The names of the columns with any finite value, by the label of their panel."""
    panels: dict[str, list[str]] = {label: [] for label in ("loss", "loss (linear)", *KINDS.values())}
    for name, values in columns.items():
        finite = values[np.isfinite(values)]
        if not len(finite) or name in CLOCKS:
            continue
        kind = next((label for start, label in KINDS.items() if name.lower().startswith(start)), None)
        loss = "loss" if finite.min() >= 0 < finite.max() else "loss (linear)"
        panels[kind or loss].append(name)
    return {label: names for label, names in panels.items() if names}


def _curve(ax: Axes, steps: np.ndarray, values: np.ndarray, name: str) -> None:
    """Draw one column, with gaps bridged; many points become a faint line under the means of 100 intervals."""
    drawn = np.isfinite(values) & np.isfinite(steps)
    x, y = steps[drawn], values[drawn]
    style: dict[str, Any] = {"color": f"C{len(ax.get_legend_handles_labels()[1])}"}
    if name.endswith("bicubic"):
        style = {"color": "0.5", "linestyle": "--", "zorder": 1.5}  # behind the other curves
    if len(x) > 200:
        ax.plot(x, y, **style, alpha=0.25, linewidth=0.7)
        x, y = (np.array([part.mean() for part in np.array_split(column, 100)]) for column in (x, y))
    ax.plot(x, y, **style, marker="." if len(x) <= 20 else None, label=name)


def _dress(ax: Axes, label: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    ax.set_ylabel(label.removesuffix(" (linear)"))
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if label == "loss":
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(LogLocator(subs=(1, 3)))  # matplotlib drops them if there are too many
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    if label in LIMITS:
        ax.set_ylim(*LIMITS[label])
    ax.grid(which="both", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    # Above the axes, so that it hides no curve.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False, borderaxespad=0.2, fontsize=9)
