"""Writes the results as a table (Markdown), data (JSON) and a picture (PNG)."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import Case, flops

OURS = "tinysrgan"
AVX2 = "tinysrgan, AVX2"  # the same, limited to BLAS kernels for older CPUs
PEERS = ("PyTorch", "Keras")

COLOURS = {
    (OURS, "PyTorch"): "#c8501e",
    (AVX2, "PyTorch"): "#eab094",
    (OURS, "Keras"): "#1f6fb2",
    (AVX2, "Keras"): "#9cc3e2",
}

# How everything was measured; printed below the tables.
NOTES = """\
Times are medians; "times as fast" is the other's time divided by tinysrgan's, the median of the rounds. In brackets:
the least and the most. Rounds alternate: each takes every library once, in a fresh process with all cores, and
discards the first run. PyTorch is eager, with fused Adam, in the memory layout that was faster for the row. GFLOP/s
count a direct convolution's operations, of which Winograd's (tinysrgan's and, in places, the others') needs fewer.
Memory is the process' peak. The training step: the generator makes fakes; the discriminator trains on fakes, then on
real images; then the generator trains through discriminator and VGG19 (to block3_conv4); 128x128 images, three Adam
steps in all. Upscaling: tinysrgan's is the call of what `tinysrgan.load()` returns, conversion from and to 8 bits
included; it has batch-norm, PReLU, shortcuts and the enlargements folded into the convolutions
(`tinysrgan/inference/fuse.py`). PyTorch and Keras run the net as it was trained, in eval mode."""


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of one library in one row, over all its processes."""
    seconds = [time for one in rounds for time in one["seconds"]]
    return {
        "median": median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "layout": rounds[0]["layout"],
        "runs": len(seconds),
        "rounds": [median(one["seconds"]) for one in rounds],
        "peak_memory": max(one["peak_memory"] for one in rounds),
    }


def times_as_fast(ours: dict[str, Any], peer: dict[str, Any]) -> tuple[float, float, float]:
    """The ratio of the times, theirs over ours: the median, minimum and maximum of the rounds."""
    rounds = [theirs / own for own, theirs in zip(ours["rounds"], peer["rounds"], strict=True)]
    return median(rounds), min(rounds), max(rounds)


def markdown(results: dict[str, Any], picture: str) -> str:
    """The whole report."""
    machine = results["machine"]
    lines = [f"# {machine['cpu']}, {machine['cores']} cores, {machine['date']}", ""]
    lines += [f"{', '.join(machine['versions'])}, Python {machine['python']}, {machine['system']}.", ""]
    for ours, blas in machine["blas"].items():
        lines += [f"## {ours}: {describe(blas)}", "", *table(results["rows"], ours, blas), ""]
    return "\n".join([*lines, f"![Times as fast as the others]({picture})", "", NOTES, ""])


def describe(blas: dict[str, Any]) -> str:
    """The BLAS kernels that tinysrgan used, and their speed in large matrix products."""
    return (
        f"{blas['library']}, core {blas['core']}, sgemm {blas['sgemm_one_thread']:.0f} GFLOP/s with one thread, "
        f"{blas['sgemm_all_threads']:.0f} with all"
    )


def table(rows: list[dict[str, Any]], ours: str, blas: dict[str, Any]) -> list[str]:
    """A row for each case: the times of tinysrgan and its peers, their ratios, GFLOP/s and memory."""
    peers = [peer for peer in PEERS if peer in rows[0]["results"]]
    head = ["", "tinysrgan", *peers, *(f"times as fast as {peer}" for peer in peers), "GFLOP/s", "of sgemm", "peak MB"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        results = row["results"]
        own = results[ours]
        shown = [results[peer] for peer in peers]
        everyone = [own, *shown]
        speeds = [row["gflop"] / one["median"] for one in everyone]
        ratios = [times_as_fast(own, peer) for peer in shown]
        lines.append(
            [
                row["case"]["name"],
                *map(duration, everyone),
                *(
                    f"**{ratio:.2f}**" + (f" ({least:.2f} to {most:.2f})" if most > least else "")
                    for ratio, least, most in ratios
                ),
                " / ".join(f"{speed:.0f}" for speed in speeds),
                f"{100 * speeds[0] / blas['sgemm_all_threads']:.0f} %",
                " / ".join(f"{one['peak_memory'] / 1e6:.0f}" for one in everyone),
            ]
        )
    return ["| " + " | ".join(line) + " |" for line in lines]


def duration(result: dict[str, Any]) -> str:
    """Median, minimum and maximum of the times, in seconds or milliseconds."""
    factor, unit = (1, "s") if result["median"] >= 1 else (1000, "ms")
    values = [factor * result[name] for name in ("median", "least", "most")]
    shown = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values]
    return f"{shown[0]} {unit} ({shown[1]} to {shown[2]})"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw bars: how many times as fast as each peer, row by row, with a line at equal speed."""
    from matplotlib.figure import Figure

    rows, machine = results["rows"], results["machine"]
    bars = [(ours, peer) for peer in PEERS if peer in rows[0]["results"] for ours in machine["blas"]]
    figure = Figure(figsize=(9, 1.5 + 0.2 * len(rows) * (1 + len(bars))), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(bars))
    for i, (ours, peer) in enumerate(bars):
        ratios, less, more = [], [], []
        for row in rows:
            ratio, least, most = times_as_fast(row["results"][ours], row["results"][peer])
            ratios.append(ratio)
            less.append(max(0, ratio - least))
            more.append(max(0, most - ratio))
        places = [y + (i - (len(bars) - 1) / 2) * height for y in range(len(rows))]
        label = f"{peer}, with BLAS kernels for {machine['blas'][ours]['core']}"
        axes.barh(places, ratios, height, xerr=(less, more), color=COLOURS[ours, peer], ecolor="#555555", label=label)
        for place, ratio, above in zip(places, ratios, more, strict=True):
            text = axes.text(ratio + above + 0.03, place, f"{ratio:.2f}", va="center", fontsize=8)
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # over the line at 1
    axes.axvline(1, color="black", linewidth=1)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}")
    axes.set_yticks(range(len(rows)), [row["case"]["name"] for row in rows])
    axes.spines[["top", "right"]].set_visible(False)
    if bars:
        figure.legend(title="tinysrgan is so many times as fast as", loc="outside upper center", frameon=False, ncols=2)
    figure.savefig(path, dpi=120)


def write(results: dict[str, Any], folder: Path, name: str) -> str:
    """Write the table, the data and the picture to a folder; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results, f"{name}.png")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, folder / f"{name}.png")
    return text


def row(case: Case, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A row of the results: the case, its operations in billions, and the summary of every library."""
    return {
        "case": vars(case),
        "gflop": flops(case) / 1e9,
        "results": {name: summary(rounds) for name, rounds in results.items()},
    }
