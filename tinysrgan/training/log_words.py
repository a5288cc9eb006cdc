"""What a run says in words: its losses, its scores, and how to go on with it."""

from __future__ import annotations

import math
import shlex
from pathlib import Path


def describe(losses: dict[str, float]) -> str:
    """Losses by name for the progress bar; D(real) and D(fake) as probabilities."""
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


def resume_option(run: Path) -> str:
    """``--resume RUN`` as a shell takes it, also for a name with a space or with a dash at its start."""
    name = shlex.quote(run.as_posix())
    return f"--resume={name}" if name.startswith("-") else f"--resume {name}"
