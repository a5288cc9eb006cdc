"""Measures how many codes from everyday scenes ``tinysrgan.rescue`` reads: ``python -m benchmarks.qr.real_life``.

The pictures are rendered, not photographed: a large symbol with effects of a camera, a screen or a messenger. The texts
are reserved; versions 1 to 3 alternate. The command takes some minutes and writes a table, and a picture with one
example of each scene.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

import tinysrgan
from benchmarks.qr.photographs import enlarged
from tinysrgan.core.cli import command, command_line, progress, whole
from tinysrgan.data.images import quantize
from tinysrgan.data.qr_codes import LEVELS, QUIET, modules, payload
from tinysrgan.metrics.qr_reader import read_codes

FINE = 16  # pixels per module of the large symbol
SEED = 11
Scene = Callable[[np.random.Generator, Image.Image], Image.Image]  # from the large symbol to the picture


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qr.real_life", description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=whole(1), default=20, metavar="N", help="pictures of each scene (20)")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="another generator than the one trained on photographs"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results", metavar="DIR")
    args = parser.parse_args(command_line(arguments))
    upscaler = tinysrgan.load(args.weights)
    lines = [
        "| scene | scan as they are | enlarged (Lanczos) | rescued | misread |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    rows = []
    with progress(len(SCENES) * args.count, "pictures") as done:
        for index, (name, scene) in enumerate(SCENES.items()):
            plain = by_lanczos = right = wrong = 0
            for i in range(args.count):
                text, picture = sample(scene, np.random.default_rng([SEED, index, i]), i)
                large = Image.fromarray(enlarged(picture, 4))
                found = tinysrgan.rescue(picture, upscaler)
                reads = [read_codes(np.asarray(image)) == [text] for image in (picture, large)]
                plain, by_lanczos = plain + reads[0], by_lanczos + reads[1]
                right, wrong = right + (text in found.texts), wrong + any(other != text for other in found.texts)
                if i == min(1, args.count - 1):  # version 2, if there are two
                    rows.append((name, [picture, large, found.picture], [*reads, text in found.texts]))
                done(1)
            lines.append(f"| {name} | {plain} | {by_lanczos} | **{right}** | {wrong} |")
    print(f"Of {args.count} pictures each:\n\n" + "\n".join(lines))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(rows, args.out / "real-life.png")
    (args.out / "real-life.md").write_text(f"Of {args.count} pictures each:\n\n" + "\n".join(lines) + "\n")
    return 0


def sample(scene: Scene, rng: np.random.Generator, i: int) -> tuple[str, Image.Image]:
    """Return the text and the grey picture of code ``i`` of a scene."""
    version, level = 1 + i % 3, list(LEVELS)[i % 4]
    text = payload(rng, version, level, ("digits", "capitals", "address")[i % 3], reserved=True)
    symbol = np.pad(modules(text, version, level), QUIET)
    code = Image.fromarray(255 * (1 - np.kron(symbol, np.ones((FINE, FINE), np.uint8))))
    return text, scene(rng, code)


# ---------------------------------------------------------------- the scenes


def crop(module: float) -> Scene:
    """Make a scene: a code cropped to its quiet zone, ``module`` pixels per module, unaligned with the pixels."""

    def scene(rng: np.random.Generator, code: Image.Image) -> Image.Image:
        right, down = rng.integers(-FINE // 2, FINE // 2, 2)
        return shrink(ImageChops.offset(code, int(right), int(down)), module)

    return scene


def screenshot(rng: np.random.Generator, code: Image.Image) -> Image.Image:
    """Draw a page with a few lines of text and the code, at 1 to 1.2 pixels per module."""
    small = shrink(code, rng.uniform(1, 1.2))
    page = Image.new("L", (260, 120), 255)
    pen = ImageDraw.Draw(page)
    for line in range(7):
        pen.text((8, 8 + 15 * line), "Show this code at the entrance."[: int(rng.integers(18, 32))], fill=60)
    page.paste(small, (int(rng.integers(200, 210)), int(rng.integers(20, 70))))
    return page


def messenger(rng: np.random.Generator, code: Image.Image) -> Image.Image:
    """Draw the screenshot as a JPEG of quality 60, as sent by a messenger."""
    return jpeg(screenshot(rng, code), 60)


def photo(module: float, tilt: float, quarter: int = 0) -> Scene:
    """Make a scene: a printed code seen at an angle, in uneven light, slightly out of focus, with noise, as a JPEG."""

    def scene(rng: np.random.Generator, code: Image.Image) -> Image.Image:
        wide = 2 * code.width
        table = Image.new("L", (wide, wide), 175)
        sheet = ImageOps.expand(code, border=4 * FINE, fill=255)
        table.paste(sheet, ((wide - sheet.width) // 2, (wide - sheet.height) // 2))
        table = table.rotate(rng.uniform(-15, 15) + 90 * quarter, Image.Resampling.BICUBIC, fillcolor=175)
        moved = np.array([(0, 0), (0, wide), (wide, wide), (wide, 0)]) + rng.uniform(-tilt, tilt, (4, 2)) * wide
        seen = table.transform(table.size, Image.Transform.QUAD, moved.ravel().tolist(), Image.Resampling.BICUBIC)
        seen = seen.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.5) * FINE / module))
        small = np.asarray(shrink(seen, module), float)
        light = np.add.outer(np.linspace(0, rng.uniform(-0.25, 0), len(small)), np.linspace(0.9, 0.75, len(small[0])))
        noisy = 15 + small * light + rng.normal(0, 3, small.shape)
        return jpeg(Image.fromarray(quantize(noisy)), 85)

    return scene


def moved(rng: np.random.Generator, code: Image.Image) -> Image.Image:
    """Draw a cropped code with motion blur of one and a half modules."""
    length = int(1.5 * FINE)
    streak = np.mean([np.roll(np.asarray(code, float), step, axis=1) for step in range(length)], axis=0)
    return shrink(Image.fromarray(streak.astype(np.uint8)), 1)


def inverted(rng: np.random.Generator, code: Image.Image) -> Image.Image:
    """Draw a cropped code, white on black."""
    return ImageOps.invert(crop(1)(rng, code))


def shrink(image: Image.Image, module: float) -> Image.Image:
    size = (round(image.width * module / FINE), round(image.height * module / FINE))
    return image.resize(size, Image.Resampling.BOX)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")


SCENES: dict[str, Scene] = {
    "crop, 1.1 pixels a module": crop(1.1),
    "crop, 0.9 pixels a module": crop(0.9),
    "crop, 0.78 pixels a module": crop(0.78),
    "crop, white on black": inverted,
    "crop, moved": moved,
    "screenshot": screenshot,
    "screenshot, JPEG": messenger,
    "photo, 1.5 pixels a module": photo(1.5, 0.04),
    "photo, 1.2 pixels a module": photo(1.2, 0.04),
    "photo, 1 pixel a module": photo(1, 0.04),
    "photo, from far aside": photo(1.2, 0.12),
    "photo, upside down": photo(1.2, 0.04, quarter=2),
}


# ---------------------------------------------------------------- the picture


def draw(rows: list[tuple[str, list[Image.Image | None], list[bool]]], path: Path) -> None:
    """Draw a scene's picture, enlarged and rescued; green frames mark images that scan, red frames the others."""
    side, gap, title = 130, 6, 18
    width, height = 3 * (side + gap) + 3 * gap, side + gap + title
    half = -(-len(rows) // 2)
    canvas = Image.new("RGB", (2 * width, half * height), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (name, images, scans) in enumerate(rows):
        x, y = row // half * width, row % half * height
        pen.text((x, y + 2), name, fill="black")
        for column, (image, good) in enumerate(zip(images, scans, strict=True)):
            frame = Image.new("RGB", (side, side), (40, 160, 70) if good else (200, 50, 40))
            if image is None:
                frame.paste("white", (3, 3, side - 3, side - 3))
                ImageDraw.Draw(frame).text((side // 2, side // 2), "not rescued", fill="black", anchor="mm")
            else:
                frame.paste(ImageOps.pad(image.convert("RGB"), (side - 6, side - 6), color="white"), (3, 3))
            canvas.paste(frame, (x + column * (side + gap), y + title))
    canvas.save(path)


if __name__ == "__main__":
    sys.exit(command(main))
