"""The value ranges of an image inside a net. Everything outside the nets uses "signed"."""

from __future__ import annotations

RANGES = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0), "bytes": (0.0, 255.0)}
VALUE_RANGES = tuple(f"{inside}:{outside}" for inside in RANGES for outside in RANGES)  # at both ends of a net


def conversion(source: str, target: str) -> tuple[float, float]:
    """The factor and the offset, which is added last, that convert values from one of the RANGES to another."""
    (low, high), (new_low, new_high) = RANGES[source], RANGES[target]
    factor = (new_high - new_low) / (high - low)
    return factor, new_low - low * factor
