"""The parts of ``rescue``: symbols, planes, finder patterns, the camera's model and the clean drawing."""

from dataclasses import replace

import numpy as np
import pytest
from photographs import corners, photograph
from PIL import Image
from planted import plant_in_module

from tinysrgan.data.qr_codes import modules
from tinysrgan.inference.rescuing import sampling
from tinysrgan.inference.rescuing.camera import SIDE, aligned, focused, footprints, rendered, view
from tinysrgan.inference.rescuing.contrast import normalised
from tinysrgan.inference.rescuing.finders import finders
from tinysrgan.inference.rescuing.findings import Findings, Rescued
from tinysrgan.inference.rescuing.grid import Grid, fitted
from tinysrgan.inference.rescuing.locate import located
from tinysrgan.inference.rescuing.plane import homography, sampled, square, through
from tinysrgan.inference.rescuing.redraw import completed, drawn
from tinysrgan.inference.rescuing.sampling import Tempering, samples
from tinysrgan.inference.rescuing.symbol import VERSIONS, format_places, format_words, function_patterns
from tinysrgan.inference.rescuing.windows import windows
from tinysrgan.metrics.qr_reader import read_code

pytest.importorskip("zxingcpp")
pytest.importorskip("qrcode")
TEXT = "HELLO WORLD 77"


def signed(symbol: np.ndarray) -> np.ndarray:
    return 2.0 * symbol - 1


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_known_of_a_symbol_is_so_in_every_symbol(version):
    symbol = signed(modules("1", version, "M", mask=version % 8))
    known = function_patterns(version)
    assert (symbol[known != 0] == known[known != 0]).all()
    places = format_places(version)
    words = symbol[places[..., 0], places[..., 1]]
    assert (words[0] == words[1]).all() and (format_words() == words[0]).all(axis=1).sum() == 1
    assert (known[places[..., 0], places[..., 1]] == 0).all()


def test_a_homography_maps_its_points_and_back():
    there = np.array([(3, 4), (30, 6), (28, 33), (1, 25.0)])
    matrix = homography(square(21), there)
    assert np.allclose(through(matrix, square(21)), there)
    assert np.allclose(through(np.linalg.inv(matrix), there), square(21))
    ramp = np.add.outer(10.0 * np.arange(20), np.arange(30)) + 5.5  # a pixel's value is the ramp at its centre
    assert np.allclose(sampled(ramp, np.array([(3.25, 4.5), (20, 10)])), (10 * 4.5 + 3.25, 10 * 10 + 20))
    assert np.allclose(sampled(ramp, np.array([(-5, -5), (99, 99)])), (ramp[0, 0], ramp[-1, -1]))


def test_normalised_contrast_is_the_same_in_shade_and_in_light():
    board = np.kron(np.indices((12, 12)).sum(axis=0) % 2, np.ones((2, 2)))
    shaded = 20 + board * np.linspace(40, 200, 24)
    result = normalised(shaded.astype(np.uint8), 4)
    assert result.min() >= 0 and result.max() <= 1
    assert (result[board == 1].min() - result[board == 0].max()) > 0.3


@pytest.mark.parametrize(("pitch", "turn", "invert"), [(0.9, 0, False), (1.1, 33, False), (1.6, 71, True)])
def test_finder_patterns_are_the_likeliest_places(pitch, turn, invert):
    places = corners(25, pitch, turn)
    picture = photograph(TEXT, 2, places)
    large = np.asarray(picture.resize((160, 160), Image.Resampling.LANCZOS))
    found = finders(255 - large if invert else large)[int(invert)][:3]
    truth = through(homography(square(25), places), np.array([(3.5, 3.5), (21.5, 3.5), (3.5, 21.5)]))
    distance = np.hypot(*(np.array([(f.x, f.y) for f in found])[:, None] / 2 - truth).T)
    assert (distance.min(axis=1) < 0.7 * pitch).all()


@pytest.mark.parametrize(
    ("version", "pitch", "turn", "tilt"), [(1, 1, 10, 2), (2, 0.9, 100, 0), (3, 1.2, -40, 4), (5, 1.1, 185, 3)]
)
def test_the_best_grid_has_the_right_version_and_place(version, pitch, turn, tilt):
    places = corners(17 + 4 * version, pitch, turn, tilt)
    picture = photograph(TEXT, version, places)
    large = np.asarray(picture.resize((160, 160), Image.Resampling.LANCZOS))
    best = located(large, finders(large)[0])[0]
    assert best.version == version and abs(best.corners / 2 - places).max() < 1


def framed(symbol: np.ndarray) -> np.ndarray:
    """The modules that a camera sees: the symbol and the light ring around it."""
    return np.pad(signed(symbol), 1, constant_values=-1).ravel()


def test_a_view_is_what_its_symbol_renders():
    symbol = framed(modules(TEXT, 2, "M"))
    mixed = np.random.default_rng(0).uniform(0, 1, (SIDE, SIDE))
    seen = view(np.zeros((80, 80), np.uint8), Grid(2, corners(25, 1.1, 12, 2)), 0.3)
    seen = replace(seen, response=mixed / mixed.sum())
    matrix = footprints(seen)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(matrix @ symbol, rendered(seen, symbol), atol=1e-5)


@pytest.mark.parametrize(("blur", "sharpened"), [(0.0, 0), (0.3, 0), (0.6, 0), (0.4, 0.6)])
def test_the_camera_that_took_a_picture_is_found(blur, sharpened):
    symbol = framed(modules(TEXT, 2, "M"))
    grid = Grid(2, corners(25, 1.1, 12, 2))
    flat = view(np.zeros((80, 80), np.uint8), grid, blur)
    taken = np.outer((0.25, 0.5, 0.25), (0.25, 0.5, 0.25)) * -sharpened
    taken[1, 1] += 1 + sharpened
    flat = replace(flat, response=taken)
    picture = np.full((80, 80), 150.0)
    top, left = flat.window[1], flat.window[0]
    rows, columns = np.divmod(flat.at, flat.window[2])
    picture[top + rows, left + columns] = 130 - 60 * rendered(flat, symbol)
    found = view(picture, grid)
    for _ in range(3):
        found = focused(found, symbol)
    assert found.blur == pytest.approx(blur, abs=0.11)
    assert abs(rendered(found, symbol) - rendered(flat, symbol)).max() < 0.05
    if blur == found.blur:
        assert abs(found.response - taken).max() < 0.03


def test_a_grid_is_moved_to_where_its_symbol_explains_the_pixels():
    places = corners(25, 0.95, 20, 2)
    picture = np.asarray(photograph(TEXT, 2, places, grey=(70, 160)))
    shifted = np.array([(0.3, 0.2), (-0.3, 0.1), (0.2, -0.3), (0.1, 0.3)])
    grid = aligned(view(picture, Grid(2, places + shifted), 0.3), framed(modules(TEXT, 2, "M")))
    assert abs(grid.corners - places).max() < 0.05


def test_samples_explain_what_the_pixels_hold_without_a_generator():
    places = corners(25, 0.95, 20, 2)
    picture = np.asarray(photograph(TEXT, 2, places, grey=(70, 160)))
    drawn_symbols = [symbol for symbol, _ in samples(picture, Grid(2, places + 0.1), np.zeros((25, 25)))]
    wrong = [((symbol > 0) != modules(TEXT, 2, "M")).mean() for symbol in drawn_symbols]
    assert min(wrong) < 0.02 and min(wrong[:3]) > min(wrong)
    best = drawn_symbols[int(np.argmin(wrong))]
    assert read_code(drawn(completed(best, 2))) == TEXT


def test_a_picture_without_the_symbol_is_given_up_after_one_round():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    grid = Grid(1, corners(21, 1.2, 7, 1, (20, 20)))
    assert len(list(samples(noise, grid, np.zeros((21, 21))))) == sampling.SWEEPS + 1


def marginals(faulty: type[Tempering] = Tempering, sweeps: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """The means of nine free modules in a symbol of 5x5: by sampling, and exactly, by a sum over all 512 symbols."""
    rng = np.random.default_rng(0)
    known = np.full((5, 5), -1)
    known[1:4, 1:4] = 0
    free = np.flatnonzero(known.ravel() == 0)
    a, prior = rng.normal(size=(6, 25)).astype(np.float32), np.zeros(25, np.float32)
    prior[free] = rng.uniform(-0.5, 0.5, 9)
    y = (a @ np.where(known.ravel() == 0, np.sign(rng.normal(size=25)), -1) + rng.normal(size=6)).astype(np.float32)

    tempering = faulty(known.ravel(), prior, np.where(known.ravel() == 0, 1, -1), 5, 0)
    tempering.use(a)
    tempering.rest, tempering.variance = y - tempering.states @ a.T, 4.0
    total = np.zeros(25)
    for _ in range(sweeps):
        tempering.sweep()
        total += tempering.states[0]

    every = np.tile(np.where(known.ravel() == 0, 1, -1), (512, 1))
    every[:, free] = 2 * (np.arange(512)[:, None] >> np.arange(9) & 1) - 1
    energy = ((y - every @ a.T) ** 2).sum(axis=1) / 8 - every @ prior
    weight = np.exp(energy.min() - energy)
    return total[free] / sweeps, weight @ every[:, free] / weight.sum()


def test_samples_are_as_frequent_as_they_are_probable():
    found, exact = marginals()
    assert abs(found - exact).max() < 0.06 and np.ptp(exact) > 0.5


FAULTS = {
    "a module's own part left out": ("now * squares", "0 * squares"),
    "no generator in the draws": (" + self.prior[some]", ""),
    "half a swap": ("        self.states[:, other] -= change", "        pass"),
    "a swap's own part twice": ("change * squares / 2", "change * squares"),
    "the wrong way to the neighbour": ("self.prior[one] - self.prior[other]", "self.prior[other] - self.prior[one]"),
    "chains exchanged by chance": ("(energy[here] - energy[there])", "0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_sampling_are_found(fault):
    found, exact = marginals(plant_in_module(sampling, *FAULTS[fault]).Tempering)
    assert abs(found - exact).max() > 0.06


def test_a_grid_is_moved_to_where_the_symbol_is():
    symbol = np.kron(np.pad(signed(modules(TEXT, 2, "M")), 4, constant_values=-1), np.ones((4, 4)))
    moved = fitted(symbol, Grid(2, square(100) + 16 + np.array([(2, -1), (-2, 1), (3, 2), (1, 2)])))
    assert abs(moved.corners - square(100) - 16).max() < 1.5


def test_what_is_known_is_painted_over_wrong_evidence():
    symbol = signed(modules(TEXT, 2, "M"))
    wrong = symbol.copy()
    known = function_patterns(2) != 0
    wrong[known] *= -1
    wrong[8, :4] *= -1  # format information
    assert (completed(wrong, 2) == (symbol > 0)).all()


def test_places_where_texts_disagree_count_for_nothing():
    def code(text, shift):
        return Rescued(text, square(20) + shift, "", Image.new("L", (4, 4)))

    found = Findings()
    for text, shift in (("a", 0), ("a", 3), ("b", 50), ("c", 52), ("d", 100)):
        found.add(code(text, shift))
    result = found.result(complete=True)
    assert result.texts == ["a", "d"] and result.disputed == [("b", "c")]
    assert result.picture.size == (8, 4) and Findings().result(True).picture is None


def test_a_text_that_used_up_error_correction_counts_once_it_is_read_twice():
    found, place = Findings(), square(20)
    weak = Rescued("a", place, "", Image.new("L", (4, 4)), sure=False)
    found.add(weak)
    assert not found and not found.covers(place) and found.result(True).texts == []
    assert found.result(True).disputed == []
    found.add(weak)
    assert found and found.covers(place) and found.result(True).texts == ["a"]


def test_a_text_that_used_up_error_correction_may_be_disputed():
    found = Findings()
    for text, sure in (("a", False), ("b", True)):
        found.add(Rescued(text, square(20), "", Image.new("L", (4, 4)), sure))
    assert found.result(True).texts == [] and found.result(True).disputed == [("a", "b")]


def test_a_large_picture_is_searched_where_finder_patterns_are():
    rng = np.random.default_rng(0)
    page = np.full((700, 900), 170.0) + rng.normal(0, 4, (700, 900))
    page[420:500, 610:690] = np.asarray(photograph(TEXT, 2, corners(25, 1.2, 10)))
    parts = [part for part in windows(Image.fromarray(page.clip(0, 255).astype(np.uint8))) if part]
    first = next(part for part in parts if part.reduced == 1)
    middle = np.array([(650, 460)])
    assert ((first.corner < middle) & (first.corner + first.pixels.shape[::-1] > middle)).all()
    assert max(first.pixels.shape) < 120
