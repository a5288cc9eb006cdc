"""Samples of the symbols that explain a picture, by parallel tempering.

Given the pixels, the probability of a symbol with modules m is proportional to exp(-E(m)):

    E(m) = sum_i (y_i - sum_j A_ij m_j)^2 / (2 variance) - sum_j p_j m_j

y: the pixels without offset and gain; A: the camera's weights (``camera.py``); p: half the log odds of dark over light
by the generator. If a module is about a pixel wide, E has many local minima: two neighbours that exchange their values
change the pixels little, and one module alone changes them much.

So several chains run at temperatures T >= 1, where E / T takes the place of E. In a sweep, each module is drawn given
all others (Gibbs sampling), then neighbours exchange their values, then chains of adjacent temperatures exchange their
states; both exchanges are accepted by Metropolis' rule (Geyer 1991, "Markov chain Monte Carlo maximum likelihood"). The
chain at T = 1 yields the samples. After each round of sweeps the camera is fitted to the mean of the round's samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, isqrt

import numpy as np

from tinysrgan.inference.rescuing.camera import View, aligned, focused, footprints, shading, size, view
from tinysrgan.inference.rescuing.grid import Grid
from tinysrgan.inference.rescuing.symbol import function_patterns

CHAINS = 10
HOTTEST = 3.0  # highest temperature
ROUNDS = 8
SWEEPS = 20  # per round
WARM = 5  # sweeps of a round that its mean leaves out
APART = 6.0  # pixels; modules at this distance share hardly any pixel, so they are drawn together
SHADES = 5  # sweeps between two fits of offset and gain
LEAST_NOISE = 0.02  # standard deviation, relative to half the contrast
HOPELESS = 0.4  # noise above which the picture shows no such symbol
FEWEST, LARGEST = 100, 12_000_000  # pixels; elements of the camera matrix


def samples(picture: np.ndarray, grid: Grid, prior: np.ndarray, seed: int = 0) -> Iterator[tuple[np.ndarray, Grid]]:
    """Sample symbols that explain a grey picture (H, W); ``grid`` is their rough place.

    prior: float (n, n), half the log odds of dark over light, from the generator. Yields symbols, float (n, n) from -1
    (light) to 1 (dark), each with its grid: every sample, and the mean of every round. Ends early if the picture shows
    no such symbol.
    """
    known = np.pad(function_patterns(grid.version), 1, constant_values=-1).ravel()
    prior = np.pad(prior, 1).ravel().astype(np.float32)
    # The generator's answer, taken for surer than it is, since the camera is fitted to it.
    first = np.where(known != 0, known, np.tanh(2 * prior)).astype(np.float32)
    seen = view(picture, grid)
    if not FEWEST <= len(seen.pixels) <= LARGEST // size(grid):
        return
    for _ in range(3):
        seen = _fitted(picture, seen, first)
    tempering = Tempering(known, prior, first, ceil(APART / grid.pitch), seed)
    for _ in range(ROUNDS):
        tempering.look(seen)
        total = np.zeros(len(known))
        for sweep in range(SWEEPS):
            if sweep % SHADES == 0:
                tempering.shade()
            tempering.sweep()
            total += tempering.states[0] * (sweep >= WARM)
            yield _inner(tempering.states[0], grid), seen.grid
        mean = total / (SWEEPS - WARM)
        yield _inner(mean, grid), seen.grid
        if tempering.variance > HOPELESS**2:
            return
        seen = _fitted(picture, seen, mean)


def _fitted(picture: np.ndarray, seen: View, modules: np.ndarray) -> View:
    """The view with the camera and the grid that modules, (M,), explain best."""
    seen = focused(seen, modules)
    return replace(view(picture, aligned(seen, modules), seen.blur), response=seen.response)


def _inner(modules: np.ndarray, grid: Grid) -> np.ndarray:
    """Modules, (M,), without the ring: (n, n)."""
    return modules.reshape(grid.modules + 2, -1)[1:-1, 1:-1].copy()


class Tempering:
    """The chains. states: float (CHAINS, M), 1 or -1; rest: float (CHAINS, P), what the states leave unexplained."""

    def __init__(self, known: np.ndarray, prior: np.ndarray, first: np.ndarray, apart: int, seed: int):
        self.prior, self.rng = prior, np.random.default_rng(seed)
        self.states = np.tile(np.where(first > 0, 1, -1).astype(np.float32), (CHAINS, 1))
        self.heat = np.geomspace(1, HOTTEST, CHAINS, dtype=np.float32)[:, None]
        width = isqrt(len(known))
        row, column = np.divmod(np.arange(len(known)), width)
        colour = row % apart * apart + column % apart
        free = np.append(known == 0, np.zeros(width, bool))  # the ring is known, so no pair spans two rows
        self.singles = _by_colour(colour, free[: len(known)])
        self.pairs = []
        for step in (1, width):
            firsts = _by_colour(colour, free[: len(known)] & free[step : len(known) + step])
            self.pairs += [(one, one + step) for one in firsts]

    def look(self, seen: View) -> None:
        """Explain this view from now on."""
        self.seen = seen
        self.use(footprints(seen))

    def use(self, a: np.ndarray) -> None:
        """Use the camera's weights A, float32 (P, M), from now on."""
        self.a = a
        self.single_parts = [_part(self.a[:, some]) for some in self.singles]
        self.pair_parts = [_part(self.a[:, one] - self.a[:, other]) for one, other in self.pairs]

    def shade(self) -> None:
        """Fit offset, gain and noise to the coldest chain."""
        offset, gain = shading(self.seen.pixels, self.a @ self.states[0], self.seen.light)
        self.rest = ((self.seen.pixels - offset) / gain).astype(np.float32) - self.states @ self.a.T
        self.variance = max(float(np.mean(self.rest[0] ** 2)), LEAST_NOISE**2)

    def sweep(self) -> None:
        """Draw every module of every chain, exchange neighbours, then exchange chains."""
        for some, part in zip(self.singles, self.single_parts, strict=True):
            self._draw(some, *part)
        for pair, part in zip(self.pairs, self.pair_parts, strict=True):
            self._swap(*pair, *part)
        self._exchange()

    def _draw(self, some: np.ndarray, part: np.ndarray, squares: np.ndarray) -> None:
        """Gibbs sampling of the modules ``some``, (S,); part: their columns of A, (S, P), and the columns' squares."""
        now = self.states[:, some]
        pull = (self.rest @ part.T + now * squares) / self.variance + self.prior[some]
        dark = np.tanh(pull / self.heat) > 2 * self.rng.random(pull.shape, np.float32) - 1
        self._change(some, np.where(dark, 1 - now, -1 - now), part)

    def _swap(self, one: np.ndarray, other: np.ndarray, part: np.ndarray, squares: np.ndarray) -> None:
        """Exchange the modules ``one`` and ``other``, (S,) each; part: the differences of their columns, (S, P)."""
        change = self.states[:, other] - self.states[:, one]
        fall = (self.rest @ part.T - change * squares / 2) / self.variance + self.prior[one] - self.prior[other]
        taken = change * fall / self.heat > -self.rng.standard_exponential(fall.shape, np.float32)
        change = np.where(taken, change, 0)
        self._change(one, change, part)
        self.states[:, other] -= change

    def _change(self, some: np.ndarray, change: np.ndarray, part: np.ndarray) -> None:
        self.states[:, some] += change
        self.rest -= change @ part

    def _exchange(self) -> None:
        """Exchange the states of chains at adjacent temperatures."""
        energy = (self.rest * self.rest).sum(axis=1) / (2 * self.variance) - self.states @ self.prior
        order, cold = np.arange(CHAINS), 1 / self.heat[:, 0]
        for i in (*range(0, CHAINS - 1, 2), *range(1, CHAINS - 1, 2)):
            here, there = order[i : i + 2]
            if np.log(self.rng.random()) < (cold[i] - cold[i + 1]) * (energy[here] - energy[there]):
                order[i : i + 2] = there, here
        self.states, self.rest = self.states[order], self.rest[order]


def _by_colour(colour: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
    """The indices of the free modules of each colour."""
    return [np.flatnonzero(free & (colour == c)) for c in np.unique(colour[free])]


def _part(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of A, (P, S), as (S, P), and the sum of each one's squares, (S,)."""
    part = np.ascontiguousarray(columns.T)
    return part, (part * part).sum(axis=1)
