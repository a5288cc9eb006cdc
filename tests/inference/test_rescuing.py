"""The parts of ``rescue``: symbols, planes, finder patterns, the camera's model and the clean drawing."""

import numpy as np
import pytest
from photographs import corners, photograph
from PIL import Image

from tinysrgan.data.qr_codes import modules
from tinysrgan.inference.rescuing.camera import aligned, explained, footprints, rendered, view
from tinysrgan.inference.rescuing.contrast import normalised
from tinysrgan.inference.rescuing.finders import finders
from tinysrgan.inference.rescuing.findings import Findings, Rescued
from tinysrgan.inference.rescuing.grid import Grid, fitted
from tinysrgan.inference.rescuing.locate import located
from tinysrgan.inference.rescuing.plane import homography, sampled, square, through
from tinysrgan.inference.rescuing.redraw import completed, drawn
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


def test_a_view_is_what_its_symbol_renders():
    symbol = np.pad(signed(modules(TEXT, 2, "M")), 1, constant_values=-1).ravel()
    grid = Grid(2, corners(25, 1.1, 12, 2))
    seen = view(np.zeros((80, 80), np.uint8), grid, 0.3)
    matrix = footprints(seen)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(matrix @ symbol, rendered(seen, grid, symbol), atol=1e-5)


def test_the_camera_explains_what_the_pixels_hold():
    places = corners(25, 0.95, 20, 2)
    picture = np.asarray(photograph(TEXT, 2, places, grey=(70, 160)))
    found = explained(view(picture, Grid(2, places), 0.3), np.zeros((25, 25)))
    assert ((found.symbol > 0) == modules(TEXT, 2, "M")).mean() > 0.97 and found.noise < 0.3
    assert read_code(drawn(completed(found.symbol, 2))) == TEXT
    shifted = np.array([(0.3, 0.2), (-0.3, 0.1), (0.2, -0.3), (0.1, 0.3)])
    grid = aligned(view(picture, Grid(2, places + shifted), 0.3), found.modules)
    assert abs(grid.corners - places).max() < 0.1


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
