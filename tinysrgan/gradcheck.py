"""Is a gradient right? Compare it with what the function does when it is nudged: ``python -m tinysrgan.gradcheck``.

The loss is L = sum(dy * f(x)) with *random* weights dy. Weights of one, the usual choice, are a trap: the sum of
batch-norm's output doesn't depend on its input, so a backward pass that returns zeros would pass.

Every tensor is moved along one random direction v, a little forward and a little back. The slope of L that shows must
be sum(gradient * v). That takes a few forward passes for each tensor, however large it is, so that whole nets can be
checked. All in float64. Give it random numbers, not round ones: at a kink itself, such as ReLU's at 0 or two equal
maxima, the slopes ahead and behind differ, and there is none to compare with. That is reported as a kink.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tinysrgan.core.cli import command, taken_by
from tinysrgan.core.device import Array
from tinysrgan.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    LeakyReLU,
    MaxPool,
    PixelShuffle,
    PReLU,
    ReLU,
    Residual,
    Sigmoid,
    Tanh,
    Upsample,
)
from tinysrgan.losses import FeatureLoss, binary_cross_entropy, mean_squared_error, perceptual_loss
from tinysrgan.models import VGG19, Discriminator, Generator

TOLERANCE = 1e-6
STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
SHORTER = 10  # each than the one before
DIRECTIONS = 6  # at most, where kinks make slopes doubtful
SURE = 2e-7  # two measurements that differ by less, relative to the slope, are believed
ROUNDING = 1e-15  # of the loss, relative to it, or to 1 if it is smaller
SMALL = 1e-3  # smaller slopes count as this: those of biases before batch-norm are zero
KINK = np.inf  # in place of an error, which is 2 at most


class GradientError(AssertionError):
    """A gradient isn't the slope of its function."""


def gradcheck(layer: Layer, x: Array, rng: np.random.Generator | None = None) -> dict[str, float]:
    """The relative error of each gradient of a layer or net, by the tensor's path; "x" is the input's.

    Converts the layer to float64, in train mode. About 1e-9 is a right gradient, above 1e-6 a wrong one; infinity means
    a kink, where a gradient can't be checked. The layer's values stay as they are; its running statistics and gradients
    don't.
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

    errors = {path: _error(loss, tensors[path], gradients[path], rng) for path in gradients if _trained(layer, path)}
    layer.train()
    return errors


def gradcheck_loss(
    function: Callable[[Array], tuple[Array, Array]], y: Array, rng: np.random.Generator | None = None
) -> float:
    """The relative error of the gradient that a loss function returns beside its value: y -> (loss, gradient).

    Infinity means a kink.
    """
    y = y.astype(np.float64)
    gradient = function(y)[1]
    return _error(lambda: float(function(y)[0]), y, gradient, rng or np.random.default_rng(0))


def check_gradients(
    layer: Layer, x: Array, tolerance: float = TOLERANCE, rng: np.random.Generator | None = None
) -> None:
    """Raise GradientError with all tensors whose gradient is off by more than ``tolerance``, or at a kink."""
    errors = gradcheck(layer, x, rng)
    wrong = [
        f"{path} (error {error:.1e})" for path, error in errors.items() if not (error <= tolerance or error == KINK)
    ]
    kinks = [path for path, error in errors.items() if error == KINK]
    found = [f"wrong gradient of {', '.join(wrong)}"] if wrong else []
    if kinks:
        found.append(f"kink at these values of {', '.join(kinks)}, so no slope to check against: use random ones")
    if found:
        raise GradientError(f"{type(layer).__name__}: {'; '.join(found)}.")


def _trained(layer: Layer, path: str) -> bool:
    """Whether the layer that holds this tensor collects gradients; a frozen one doesn't."""
    for name in path.split(".")[:-1]:
        layer = layer.children()[name]
    return path == "x" or not layer.frozen


def _error(loss: Callable[[], float], tensor: Array, gradient: Array, rng: np.random.Generator) -> float:
    """|slope - gradient along v|, relative to their size, or to SMALL where both are smaller than that; KINK at a kink.

    Of several directions v the one is taken whose slope is the surest; the gradient under test has no say in it.
    """
    tries = []
    for _ in range(DIRECTIONS):
        v = rng.standard_normal(tensor.shape)
        doubt, slope, corner = _slope(loss, tensor, v)
        tries.append((doubt, slope, corner, float((gradient * v).sum())))
        if doubt < SURE:
            break
    doubt, found, corner, expected = min(tries)
    if corner / max(abs(found), SMALL) > 10 * max(doubt, SURE):
        return KINK
    return abs(found - expected) / max(abs(found), abs(expected), SMALL)


def _slope(loss: Callable[[], float], tensor: Array, v: Array) -> tuple[float, float, float]:
    """How doubtful the slope of the loss along v is; the slope itself: half of what two steps of v change; the corner.

    Long steps meet the kinks of ReLU and its kind, short ones rounding. So steps get shorter until two in a row agree.
    Rounding is counted as a doubt, because two roundings may agree by chance.

    The corner is the slope ahead less the slope behind at a step of zero, extrapolated from two steps, because a
    curve adds a share in proportion to the step. It is zero, but for rounding, unless ``tensor`` itself lies on a kink.
    """
    before = tensor.copy()
    here = loss()
    measured = []
    previous = previous_gap = np.inf
    for step in STEPS:
        tensor[...] = before + step * v
        ahead = loss()
        tensor[...] = before - step * v
        behind = loss()
        tensor[...] = before
        slope, gap = (ahead - behind) / (2 * step), (ahead - 2 * here + behind) / step
        rounding = ROUNDING * max(1.0, abs(ahead)) / step
        doubt = (abs(slope - previous) + rounding) / max(abs(slope), SMALL)
        measured.append((doubt, slope, abs(SHORTER * gap - previous_gap) / (SHORTER - 1)))
        if doubt < SURE:
            break
        previous, previous_gap = slope, gap
    return min(measured)


def report() -> Iterator[tuple[str, float]]:
    """The largest error of every layer, loss and (small) net."""
    rng = np.random.default_rng(1)
    image = rng.uniform(-1, 1, (2, 7, 6, 4))
    layers: dict[str, tuple[Layer, Array]] = {
        "Conv2D 3x3": (Conv2D(4, 5, 3, rng=rng), image),
        "Conv2D 3x3, stride 2": (Conv2D(4, 5, 3, stride=2, rng=rng), image),
        "Conv2D 9x9": (Conv2D(4, 3, 9, rng=rng), image),
        "Dense": (Dense(6, 5, rng), rng.standard_normal((3, 6))),
        "BatchNorm": (BatchNorm(4), image),
        "PReLU": (PReLU(4), image),
        "LeakyReLU": (LeakyReLU(), image),
        "ReLU": (ReLU(), image),
        "Sigmoid": (Sigmoid(), image),
        "Tanh": (Tanh(), image),
        "PixelShuffle": (PixelShuffle(), image),
        "Upsample": (Upsample(), image),
        "MaxPool": (MaxPool(), image),
        "Flatten": (Flatten(), image),
        "Residual": (Residual(Conv2D(4, 4, 3, rng=rng), BatchNorm(4), PReLU(4)), image),
        "Generator": (Generator(2, 4, seed=1), rng.uniform(-1, 1, (2, 6, 5, 3))),
        "Generator, nearest": (Generator(1, 4, upscale="nearest", seed=1), rng.uniform(-1, 1, (2, 6, 5, 3))),
        "Discriminator": (Discriminator(32, 4, 8, seed=1), rng.uniform(-1, 1, (3, 32, 32, 3))),
        "VGG19 to block2_conv1": (VGG19("block2_conv1"), rng.uniform(-1, 1, (1, 12, 12, 3))),
    }
    for name, (layer, x) in layers.items():
        yield name, float(np.max([*gradcheck(layer, x, rng).values()]))  # NaN, if there is one

    target = rng.uniform(-1, 1, (3, 32, 32, 3))
    discriminator = Discriminator(32, 4, 8, seed=1).astype(np.float64)
    features = FeatureLoss(VGG19("block1_conv2").astype(np.float64))
    losses: dict[str, Callable[[Array], tuple[Array, Array]]] = {
        "mean squared error": lambda y: mean_squared_error(y, target),
        "binary cross-entropy": lambda y: binary_cross_entropy(y, 1.0),
        "VGG19 features": lambda y: features(y, target),
        "perceptual loss": lambda y: _total(*perceptual_loss(y, target, mean_squared_error, discriminator, 0.1), 0.1),
    }
    for name, function in losses.items():
        yield name, gradcheck_loss(function, rng.uniform(-1, 1, target.shape), rng)


def _total(parts: dict[str, Array], gradient: Array, weight: float) -> tuple[Array, Array]:
    return parts["content"] + weight * parts["adversarial"], gradient


def main(arguments: Sequence[str] = ()) -> int:
    """The command: 0 if all gradients are right, 1 if one is wrong, 2 for a mistake of the user's."""
    argparse.ArgumentParser(
        prog="python -m tinysrgan.gradcheck",
        description="Compare the gradients of every layer, loss and (small) net with finite differences, in float64 on "
        "the CPU, and print the largest relative error of each. Takes a few seconds.",
        epilog="Exit code: 0 all are right, 1 one is wrong, 2 nothing was checked.",
    ).parse_args(list(arguments))
    return command(show, stopped="stopped.")


def show() -> int:
    """Print the table; 1 if a gradient is wrong, else 0."""
    right = True
    with taken_by(sys.stdout):
        print(f"{'':<26}relative error of the gradients")
    for name, error in report():
        with taken_by(sys.stdout):
            found = "kink, not checked" if error == KINK else f"{error:.1e}{'' if error <= TOLERANCE else '   WRONG'}"
            print(f"{name:<26}{found}")
        right &= error <= TOLERANCE  # which NaN isn't
    with taken_by(sys.stdout):
        print(f"\nAll are right: below {TOLERANCE:g}." if right else f"\nAbove {TOLERANCE:g} is wrong.")
    return int(not right)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
