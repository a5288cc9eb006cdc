"""Writes the results as a table (Markdown), data (JSON) and a picture (PNG)."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import Case, flops

OURS = "tinysrgan"
AVX2 = "tinysrgan, AVX2"  # the same, limited to BLAS kernels for older CPUs
# PyTorch's ways to run on a GPU, as the tables name them, and the modes of its peer.
GPU_PEERS = {"PyTorch": "eager", "PyTorch, CUDA graph": "CUDA graph", "PyTorch, compiled": "torch.compile"}
PEERS = (*GPU_PEERS, "Keras")

COLOURS = {
    (OURS, "PyTorch"): "#c8501e",
    (AVX2, "PyTorch"): "#eab094",
    (OURS, "PyTorch, CUDA graph"): "#8a8a8a",
    (OURS, "PyTorch, compiled"): "#c0c0c0",
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

GPU_NOTES = """\
Times are medians; "times as fast" is the other's time divided by tinysrgan's, the median of the rounds. In brackets:
the least and the most. Rounds alternate: each takes every library once, in a fresh process. A time is that of several
runs in a row, at the end of which the CPU waits for the GPU, divided by their number. PyTorch: channels last, cuDNN's
algorithms chosen by trial, fused Adam; tinysrgan: a training step is a CUDA graph. TF32 on both sides, except in
strict float32. The training step: the generator makes fakes; the discriminator trains on fakes, then on real images;
then the generator trains through discriminator and content loss; the optimizers are the presets' (qr: Muon). Upscaling:
from 8 bits to 8 bits, both on the CPU. TFLOP/s count a direct convolution's operations. Memory is what the
process took from the GPU."""


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of one library in one row, over all its processes."""
    seconds = [time for one in rounds for time in one["seconds"]]
    return {
        "median": median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "mode": rounds[0]["mode"],
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
    lines = [f"# {title(machine)}", ""]
    lines += [f"{', '.join(machine['versions'])}, Python {machine['python']}, {machine['system']}.", ""]
    for ours, blas in machine["blas"].items():
        lines += [f"## {ours}: {describe(blas)}", ""] if blas else []
        lines += [*table(results["rows"], ours, blas), ""]
    notes = GPU_NOTES if machine["gpu"] else NOTES
    return "\n".join([*lines, f"![Times as fast as the others]({picture})", "", notes, ""])


def title(machine: dict[str, Any]) -> str:
    return f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, {machine['date']}"


def describe(blas: dict[str, Any]) -> str:
    """The BLAS kernels that tinysrgan used, and their speed in large matrix products."""
    return (
        f"{blas['library']}, core {blas['core']}, sgemm {blas['sgemm_one_thread']:.0f} GFLOP/s with one thread, "
        f"{blas['sgemm_all_threads']:.0f} with all"
    )


def table(rows: list[dict[str, Any]], ours: str, blas: dict[str, Any]) -> list[str]:
    """A row for each case: the times of tinysrgan and its peers, their ratios, speeds and memory.

    blas: as from ``benchmarks.machine``; empty for a GPU.
    """
    peers = peers_in(rows)
    speed = ["GFLOP/s", "of sgemm"] if blas else ["TFLOP/s"]
    head = ["", "tinysrgan", *peers, *(f"times as fast as {peer}" for peer in peers), *speed, "peak MB"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        results = row["results"]
        own = results[ours]
        everyone = [own, *(results.get(peer) for peer in peers)]
        speeds = [row["gflop"] / one["median"] if one else 0 for one in everyone]
        lines.append(
            [
                row["case"]["name"],
                *map(duration, everyone),
                *(comparison(own, peer) for peer in everyone[1:]),
                " / ".join(f"{speed:.0f}" if blas else f"{speed / 1000:.1f}" for speed in speeds),
                *([f"{100 * speeds[0] / blas['sgemm_all_threads']:.0f} %"] if blas else []),
                " / ".join(f"{one['peak_memory'] / 1e6:.0f}" if one else "-" for one in everyone),
            ]
        )
    return ["| " + " | ".join(line) + " |" for line in lines]


def peers_in(rows: list[dict[str, Any]]) -> list[str]:
    """The peers with a result in at least one row."""
    return [peer for peer in PEERS if any(peer in row["results"] for row in rows)]


def comparison(own: dict[str, Any], peer: dict[str, Any] | None) -> str:
    """How many times as fast as a peer, with the range over the rounds."""
    if not peer:
        return ""
    ratio, least, most = times_as_fast(own, peer)
    return f"**{ratio:.2f}**" + (f" ({least:.2f} to {most:.2f})" if most > least else "")


def duration(result: dict[str, Any] | None) -> str:
    """Median, minimum and maximum of the times, in seconds or milliseconds."""
    if not result:
        return "failed"
    factor, unit = (1, "s") if result["median"] >= 1 else (1000, "ms")
    values = [factor * result[name] for name in ("median", "least", "most")]
    shown = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values]
    return f"{shown[0]} {unit} ({shown[1]} to {shown[2]})"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw bars: how many times as fast as each peer, row by row, with a line at equal speed."""
    from matplotlib.figure import Figure

    rows, machine = results["rows"], results["machine"]
    bars = [(ours, peer) for peer in peers_in(rows) for ours in machine["blas"]]
    figure = Figure(figsize=(9, 1.5 + 0.2 * len(rows) * (1 + len(bars))), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(bars))
    for i, (ours, peer) in enumerate(bars):
        places, ratios, less, more = [], [], [], []
        for y, row in enumerate(rows):
            if peer not in row["results"]:
                continue
            places.append(y + (i - (len(bars) - 1) / 2) * height)
            ratio, least, most = times_as_fast(row["results"][ours], row["results"][peer])
            ratios.append(ratio)
            less.append(max(0, ratio - least))
            more.append(max(0, most - ratio))
        blas = machine["blas"][ours]
        label = f"{peer}, with BLAS kernels for {blas['core']}" if blas else peer
        axes.barh(places, ratios, height, xerr=(less, more), color=COLOURS[ours, peer], ecolor="#555555", label=label)
        for place, ratio, above in zip(places, ratios, more, strict=True):
            text = axes.text(ratio + above + 0.03, place, f"{ratio:.2f}", va="center", fontsize=8)
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # over the line at 1
    axes.axvline(1, color="black", linewidth=1)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=title(machine))
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
