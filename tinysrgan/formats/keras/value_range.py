"""The value ranges at both ends of a Keras generator, and its last activation.

The arrays don't tell them. Whole models (by Rescaling layers and activations) and our own exports do; for other files
the user gives them.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise, permutations
from pathlib import Path
from typing import NamedTuple

import h5py

from tinysrgan.core.errors import UserError
from tinysrgan.core.value_ranges import RANGES, VALUE_RANGES, conversion
from tinysrgan.formats.hdf5 import attribute
from tinysrgan.formats.keras.model_config import Step
from tinysrgan.formats.keras.weights import WeightsError
from tinysrgan.formats.keras.wiring import Parts
from tinysrgan.models.generator import OUTPUTS

STATEMENT = "tinysrgan"  # the attribute of our own exports


class Ends(NamedTuple):
    """A generator's input and output value ranges, and its last activation; None if unknown."""

    inside: str | None = None
    outside: str | None = None
    output: str | None = None


def read_range(text: str) -> Ends:
    """Read "IN:OUT", or one word for both: RANGES, and for OUT also "tanh" or "sigmoid". Raises UserError."""
    inside, _, outside = text.partition(":")
    output = {"tanh": "signed", "sigmoid": "unit"}.get(outside)
    ends = Ends(inside, output or outside or inside, outside if output else None)
    if f"{ends.inside}:{ends.outside}" not in VALUE_RANGES:
        raise UserError(
            f"The value range '{text}' is not IN or IN:OUT, with {', '.join(RANGES)} for both, and for OUT also tanh "
            "and sigmoid."
        )
    return ends


def stated(file: h5py.File, model: Parts, path: Path) -> Ends:
    """The ends that the file states: our own export's, or a whole model's rescalings and last activation.

    Raises WeightsError for a Rescaling between unknown ranges.
    """
    statement = attribute(file, STATEMENT)
    if statement is not None:
        told = json.loads(statement)
        inside, outside = told["value_range"].split(":")
        return _checked(Ends(inside, outside, told["output"]), path)
    if not model.net:
        return Ends()
    _, inside = _through(model.before, path)
    outside, _ = _through(model.after, path)
    last = model.net[-1].kind
    if last in ("tanh", "sigmoid"):
        return Ends(inside, outside or {"tanh": "signed", "sigmoid": "unit"}[last], last)
    return Ends(inside, outside, "linear" if outside or not model.after else None)


def _through(chain: list[Step], path: Path) -> tuple[str | None, str | None]:
    """The ranges before and after a chain of layers; None if it is empty or contains other layers than Rescaling."""
    if not chain or any(step.kind != "Rescaling" for step in chain):
        return None, None
    ranges = [_ranges(step, path) for step in chain]
    for step, ((_, given), (taken, _)) in zip(chain[1:], pairwise(ranges), strict=True):
        if given != taken:
            raise WeightsError(f"{path}: {step} takes values of range {taken}, and gets {given}.")
    return ranges[0][0], ranges[-1][1]


def _ranges(step: Step, path: Path) -> tuple[str, str]:
    """A Rescaling's input and output range, from its scale and offset."""
    factor, offset = step.options.get("scale"), step.options.get("offset")
    if isinstance(factor, int | float) and isinstance(offset, int | float):
        for source, target in permutations(RANGES, 2):
            our_factor, our_offset = conversion(source, target)
            if math.isclose(factor, our_factor, rel_tol=1e-5) and math.isclose(offset, our_offset, abs_tol=1e-5):
                return source, target
    raise WeightsError(f"{path}: {step} goes between none of the ranges {', '.join(RANGES)}.")


def _checked(ends: Ends, path: Path) -> Ends:
    if f"{ends.inside}:{ends.outside}" not in VALUE_RANGES or ends.output not in OUTPUTS:
        raise WeightsError(f"{path} states a value range that there isn't: {ends}.")
    return ends


def settle(stated: Ends, given: Ends, path: Path) -> Ends:
    """Combine both. Raises WeightsError if they contradict each other, or leave a range open."""
    for known, wanted in zip(stated, given, strict=True):
        if known and wanted and known != wanted:
            raise WeightsError(
                f"{path} states that its net has {known} where --value-range says {wanted}: leave it out."
            )
    ends = Ends(*(known or wanted for known, wanted in zip(stated, given, strict=True)))
    if not ends.inside or not ends.outside:
        raise WeightsError(
            f"{path} doesn't state the range of its net's values: add --value-range IN:OUT, each of them signed "
            "(-1 to 1), unit (0 to 1) or bytes (0 to 255), and OUT tanh or sigmoid where the net ends in one; the "
            "article's is bytes:bytes, the best-known Keras port's unit:tanh."
        )
    return ends
