"""Reading without learning: enlarged and sharpened variants. They are fast and read a quarter of the small codes."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image, ImageFilter

Variant = tuple[int, float, int]  # factor of enlargement; unsharp mask: radius in input pixels, per cent

# Ordered by the number of photographed codes that each adds to those before it.
VARIANTS: tuple[Variant, ...] = (
    (6, 0.4, 150),
    (3, 1.0, 200),
    (6, 1.0, 200),
    (3, 0.6, 400),
    (4, 1.5, 200),
    (6, 0.6, 200),
    (4, 0.4, 150),
    (4, 0.4, 400),
    (2, 0.0, 0),
    (4, 0.0, 0),
    (6, 1.0, 400),
    (4, 1.0, 400),
    (3, 0.4, 150),
    (2, 1.0, 400),
    (4, 0.6, 200),
    (6, 1.5, 400),
    (3, 1.5, 200),
    (6, 0.6, 400),
    (2, 0.6, 400),
    (6, 0.0, 0),
)


def variants(
    picture: Image.Image, which: tuple[Variant, ...] = VARIANTS, largest: int = 2**31
) -> Iterator[tuple[Image.Image, int, bool]]:
    """Enlarge a grey picture by Lanczos and sharpen it by an unsharp mask, in several ways.

    Yields the result, the factor of enlargement, and whether it is sharpened. Results of more than ``largest``
    pixels are left out.
    """
    large: dict[int, Image.Image] = {}
    for times, radius, percent in which:
        if times * times * picture.width * picture.height > largest:
            continue
        if times not in large:
            size = (times * picture.width, times * picture.height)
            large[times] = picture.resize(size, Image.Resampling.LANCZOS)
        sharp = ImageFilter.UnsharpMask(radius * times, percent, threshold=0)
        yield (large[times].filter(sharp) if percent else large[times]), times, percent > 0
