"""Compare gradients with finite differences: ``python -m tinysrgan.gradcheck``.

The loss is L = sum(dy * f(x)) with a *random* cotangent dy. A dy of ones, the usual choice, hides mistakes: the sum of
batch-norm's output does not depend on its input, so that a backward pass which returns zeros would pass.

Each tensor moves along one random direction v, a little forward and a little back. The measured slope of L must be
sum(gradient * v). This takes a few forward passes for each tensor, whatever its size, so that whole nets can be
checked. All is computed in float64. Inputs must be random, not round: at a kink, such as ReLU's at 0 or two equal
maxima, the slopes ahead and behind differ, and there is none to compare with. That is reported as a kink.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tinysrgan.core.cli import command, taken_by
from tinysrgan.core.device import Array
from tinysrgan.gradcheck.registry import LAYERS, LOSS_SHAPE, LOSSES, NETS, example
from tinysrgan.layers import Layer

TOLERANCE = 1e-6
STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
STEP_RATIO = 10  # of a step to the next
DIRECTIONS = 6  # at most, where kinks make slopes uncertain
AGREEMENT = 2e-7  # two slopes agree if they differ by less than this, relative to the slope
ROUNDING = 1e-15  # of the loss, relative to it, or to 1 if it is smaller
SLOPE_FLOOR = 1e-3  # smaller slopes count as this: those of biases before batch-norm are zero
KINK = np.inf  # in place of an error, which is 2 at most


class GradientError(AssertionError):
    """A gradient is not the slope of its function."""


def gradcheck(layer: Layer, x: Array, rng: np.random.Generator | None = None) -> dict[str, float]:
    """The relative error of each gradient of a layer or net, by the tensor's path; "x" is the input's.

    Converts the layer to float64 and to train mode. A right gradient has an error of about 1e-9, a wrong one of more
    than 1e-6; infinity means a kink, where no gradient can be checked. The layer's parameters stay the same; its
    buffers and gradients change.
    """
    rng = rng or np.random.default_rng(0)
    layer.astype(np.float64).train()
    layer.zero_grad()
    x = x.astype(np.float64)
    dy = rng.standard_normal(layer.forward(x).shape)
    gradients = {"x": layer.backward(dy)} | {path: p.grad.copy() for path, p in layer.parameters().items()}
    tensors = {"x": x} | {path: p.value for path, p in layer.parameters().items()}

    def loss() -> float:
        return float((layer.forward(x) * dy).sum())

    frozen = {prefix + name for prefix, inner in layer.walk() if inner.frozen for name in vars(inner)}
    errors = {path: _error(loss, tensors[path], gradients[path], rng) for path in gradients if path not in frozen}
    layer.train()
    return errors


def gradcheck_loss(
    function: Callable[[Array], tuple[Array, Array]], y: Array, rng: np.random.Generator | None = None
) -> float:
    """The relative error of a loss function's gradient; infinity means a kink. ``function``: y -> (loss, gradient)."""
    y = y.astype(np.float64)
    gradient = function(y)[1]
    return _error(lambda: float(function(y)[0]), y, gradient, rng or np.random.default_rng(0))


def check_gradients(
    layer: Layer, x: Array, tolerance: float = TOLERANCE, rng: np.random.Generator | None = None
) -> None:
    """Raise GradientError with all tensors whose gradient is off by more than ``tolerance``, or at a kink."""
    errors = gradcheck(layer, x, rng)
    wrong = [f"{path} (error {error:.1e})" for path, error in errors.items() if is_wrong(error, tolerance)]
    kinks = [path for path, error in errors.items() if error == KINK]
    found = [f"wrong gradient of {', '.join(wrong)}"] if wrong else []
    if kinks:
        found.append(f"kink at these values of {', '.join(kinks)}, so no slope to check against: use random ones")
    if found:
        raise GradientError(f"{type(layer).__name__}: {'; '.join(found)}.")


def is_wrong(error: float, tolerance: float = TOLERANCE) -> bool:
    """Whether a gradient with this error is wrong. NaN is wrong; a kink is not."""
    return not (error <= tolerance or error == KINK)


class Slope(NamedTuple):
    """A measured slope. Rounding, and kinks within the step, make it uncertain."""

    value: float
    uncertainty: float  # relative
    kink: float  # |slope ahead - slope behind|


def _error(loss: Callable[[], float], tensor: Array, gradient: Array, rng: np.random.Generator) -> float:
    """|slope - gradient along v|, relative to the larger of them or to SLOPE_FLOOR; KINK at a kink.

    Of several directions v, the one with the least uncertain slope counts, whatever the gradient under test is.
    """
    tries = []
    for _ in range(DIRECTIONS):
        v = rng.standard_normal(tensor.shape)
        slope = _slope(loss, tensor, v)
        tries.append((slope, float((gradient * v).sum())))
        if slope.uncertainty < AGREEMENT:
            break
    slope, expected = min(tries, key=lambda one: one[0].uncertainty)
    if slope.kink / max(abs(slope.value), SLOPE_FLOOR) > 10 * max(slope.uncertainty, AGREEMENT):
        return KINK
    return abs(slope.value - expected) / max(abs(slope.value), abs(expected), SLOPE_FLOOR)


def _slope(loss: Callable[[], float], tensor: Array, v: Array) -> Slope:
    """The slope of the loss along v, by a central difference.

    Long steps cross the kinks of ReLU and the like; short ones suffer from rounding. The steps therefore get shorter
    until two slopes in a row agree. Their difference is the uncertainty. Rounding adds to it, because two rounded
    slopes may agree by chance.

    The kink is extrapolated to a step of zero: curvature adds to it in proportion to the step. It is zero, but for
    rounding, unless ``tensor`` itself lies on a kink.
    """
    before = tensor.copy()
    here = loss()
    measured = []
    previous = previous_kink = np.inf
    for step in STEPS:
        tensor[...] = before + step * v
        ahead = loss()
        tensor[...] = before - step * v
        behind = loss()
        tensor[...] = before
        slope, kink = (ahead - behind) / (2 * step), (ahead - 2 * here + behind) / step
        rounding = ROUNDING * max(1.0, abs(ahead)) / step
        uncertainty = (abs(slope - previous) + rounding) / max(abs(slope), SLOPE_FLOOR)
        at_zero = abs(STEP_RATIO * kink - previous_kink) / (STEP_RATIO - 1)
        measured.append(Slope(slope, uncertainty, at_zero))
        if uncertainty < AGREEMENT:
            break
        previous, previous_kink = slope, kink
    return min(measured, key=lambda one: one.uncertainty)


def report() -> Iterator[tuple[str, str, float]]:
    """For every layer, net and loss of the registry: its name, the path of its worst gradient, and its error."""
    for name in LAYERS | NETS:
        layer, x = example(name)
        yield name, *max(gradcheck(layer, x).items(), key=lambda item: (is_wrong(item[1]), item[1]))
    rng = np.random.default_rng(1)
    fake, real = rng.uniform(-0.9, 0.9, LOSS_SHAPE), rng.uniform(-1, 1, LOSS_SHAPE)
    for name, make in LOSSES.items():
        loss = make()
        yield name, "fake", gradcheck_loss(lambda y, loss=loss: loss(y, real), fake)  # type: ignore[misc]


def main(arguments: Sequence[str] = ()) -> int:
    """Run the command. Returns 0 if all gradients are right, 1 if one is not, 2 for a user's mistake."""
    argparse.ArgumentParser(
        prog="python -m tinysrgan.gradcheck",
        description="Compare the gradients of every layer, loss and (small) net with finite differences, in float64 on "
        "the CPU, and print the worst gradient of each with its relative error. Takes a few seconds.",
        epilog="Exit code: 0 all are right, 1 one is wrong or at a kink, 2 nothing was checked.",
    ).parse_args(list(arguments))
    return command(show, stopped="stopped.")


def show() -> int:
    """Print the table; 1 if a gradient is wrong or could not be checked, else 0."""
    found = []
    with taken_by(sys.stdout):
        print(f"{'':<32}error     worst gradient")
    for name, path, error in report():
        with taken_by(sys.stdout):
            remark = "   WRONG" if is_wrong(error) else "   kink, not checked" if error == KINK else ""
            print(f"{name:<32}{error:<10.1e}{path}{remark}")
        found.append(error)
    with taken_by(sys.stdout):
        if any(map(is_wrong, found)):
            print(f"\nAbove {TOLERANCE:g} is wrong.")
        elif KINK in found:
            print("\nAt a kink there is no slope to compare with: give random inputs.")
        else:
            print(f"\nAll are right: below {TOLERANCE:g}.")
    return int(not all(error <= TOLERANCE for error in found))
