"""Figures: images side by side (LR | bicubic | SR | HR), as in the article."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tinysrgan.core.atomic_write import write_whole
from tinysrgan.core.errors import UserError
from tinysrgan.metrics import qr_reader

if TYPE_CHECKING:
    pass

GREEN, RED = (0, 150, 70), (215, 40, 40)
FRAME, GAP = 3, 6  # pixels; images without a frame keep its space, so that all line up


def strip(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], frames: Sequence[Sequence[bool | None]] | None = None
) -> Image.Image:
    """A figure with a row for each image and a column for each title.

    rows: uint8 images (H, W), (H, W, 1) or (H, W, 3), enlarged by nearest to the height of the tallest. frames: like
    rows; green for True (the code scans), red for False, none for None. Raises ValueError if rows, titles and frames
    don't match or an array is not an image.
    """
    frames = frames or [[None] * len(titles)] * len(rows)
    if not rows or not titles or any(len(row) != len(titles) for row in (*rows, *frames)) or len(frames) != len(rows):
        raise ValueError(
            f"A strip takes as many images and frames in each row as it has titles ({len(titles)}), not images "
            f"{[len(row) for row in rows]} and frames {[len(row) for row in frames]}."
        )
    images = [[_rgb(image) for image in row] for row in rows]
    height = max(image.height for row in images for image in row)
    images = [[_enlarge(image, height) for image in row] for row in images]
    width = max(image.width for row in images for image in row)

    font_size = _font_size(titles, width + 2 * FRAME)
    font, title_height = ImageFont.load_default(font_size), math.ceil(1.5 * font_size)
    across, down = width + 2 * FRAME + GAP, height + 2 * FRAME + GAP
    canvas = Image.new("RGB", (GAP + len(titles) * across, GAP + title_height + len(rows) * down), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        centre = (GAP + column * across + FRAME + width // 2, GAP + title_height // 2)
        draw.text(centre, title, fill="black", font=font, anchor="mm")
    for i, (row, marks) in enumerate(zip(images, frames, strict=True)):
        for j, (image, scans) in enumerate(zip(row, marks, strict=True)):
            x = GAP + j * across + FRAME + (width - image.width) // 2
            y = GAP + title_height + i * down + FRAME
            if scans is not None:
                corners = (x - FRAME, y - FRAME, x + image.width + FRAME - 1, y + image.height + FRAME - 1)
                draw.rectangle(corners, fill=GREEN if scans else RED)
            canvas.paste(image, (x, y))
    return canvas


class Comparison:
    """The article's figure of a few images, chosen from all that are offered: LR, upscaled, original side by side.

    The first code of each version comes first, low versions before high ones; other images fill up the rows. Images
    with a green frame scan, those with a red one don't; images without a code have no frame.
    """

    def __init__(self, rows: int = 4):
        self.most, self.offered = rows, 0
        self.versions: set[int | None] = set()
        self.rows: list[tuple[tuple[bool, int], dict[str, np.ndarray], str | None]] = []  # rank, images, text

    def offer(self, images: dict[str, np.ndarray], text: str | None, version: int | None) -> None:
        """Add an image: its pictures by title, all uint8, and the text and version of its QR code (None: no code)."""
        first = text is not None and version not in self.versions
        self.rows.append(((False, version or 0) if first else (True, self.offered), images, text))
        self.rows = sorted(self.rows, key=lambda row: row[0])[: self.most]
        self.offered += 1
        if version is not None and text is not None:
            self.versions.add(version)

    def draw(self) -> Image.Image:
        """The figure. Raises ValueError if nothing was offered."""
        frames = [
            [qr_reader.read_code(image) == text if text is not None else None for image in images.values()]
            for _, images, text in self.rows
        ]
        titles = list(self.rows[0][1]) if self.rows else []
        return strip([list(images.values()) for _, images, _ in self.rows], titles, frames)


def save_picture(image: Image.Image, path: str | Path) -> None:
    """Write an image file atomically, in the format of the name's ending, and make missing folders.

    Raises UserError and ValueError as ``encode`` does, OSError as ``write_whole`` does.
    """
    path = Path(path)
    content = encode(image, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def encode(image: Image.Image, path: Path) -> bytes:
    """The content of an image file in the format of the path's ending.

    Raises UserError if the ending names no format, OSError or ValueError if the format can't hold the image.
    """
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format not in Image.SAVE:
        raise UserError(f"{path} must end in the name of an image format, as in .png.")
    content = io.BytesIO()
    image.save(content, format=image_format)
    return content.getvalue()


def _rgb(image: np.ndarray) -> Image.Image:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3) or not image.size:
        raise ValueError(f"A strip takes uint8 images (H, W), (H, W, 1) or (H, W, 3), not {image.dtype} {image.shape}.")
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and channels == 1 else image).convert("RGB")


def _enlarge(image: Image.Image, height: int) -> Image.Image:
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.NEAREST)


def _font_size(titles: Sequence[str], width: int) -> int:
    """A tenth of the column's width, or less for a long title, but at least 8."""
    size = max(12, width // 10)
    longest = max(ImageFont.load_default(size).getlength(title) for title in titles)
    return max(8, int(size * min(1, width / longest))) if longest else size
