"""Every lesson runs, draws its picture, and finds the numbers that its text claims."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.ops.parallel import single_threaded_blas

EXAMPLES = Path(__file__).parents[2] / "examples"
LESSONS = {int(path.name[:2]): path for path in sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a lesson as its command line does, and returns its variables."""

    def run(number: int) -> dict:
        pytest.importorskip("matplotlib")
        picture = tmp_path / "picture.png"
        monkeypatch.setattr(sys, "argv", [str(LESSONS[number]), str(picture)])
        monkeypatch.syspath_prepend(str(EXAMPLES))
        with np.errstate(), single_threaded_blas():  # small matrices, and perhaps other tests on the other cores
            variables = runpy.run_path(str(LESSONS[number]), run_name="__main__")
        with Image.open(picture) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
        return variables

    return run


def test_lessons_are_short_and_numbered_and_toured():
    tour = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert list(LESSONS) == list(range(1, 14))
    for number, path in LESSONS.items():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 120, path.name
        assert text.startswith(f'"""Lesson {number}: ') and f"python examples/{path.name} [picture.png" in text
        assert f"]({path.name})" in tour


def test_01_gradient_by_hand(run):
    lesson = run(1)
    assert lesson["act"].slope.grad[0] == lesson["by_hand"] == -2.5
    assert lesson["y"][0, 1, 2, 0] == pytest.approx(lesson["output_by_hand"], rel=1e-12)
    assert max(lesson["errors"]) < 1e-9
    best = {name: error.min() for name, error in lesson["step_errors"].items()}
    assert best["float64"] < 1e-9 < 1e-7 < best["float32"]


def test_02_ones_do_not_notice_what_a_random_cotangent_does(run):
    difference = run(2)["difference"]
    for name in ("returns zeros", "without the variance"):
        assert difference[name, "ones"] < 1e-6 < 1e-2 < difference[name, "random"]
    assert min(difference["without mean and variance", dy] for dy in ("ones", "random")) > 1e-2
    assert max(difference["right", dy] for dy in ("ones", "random")) < 1e-6


def test_03_batch_norm(run):
    lesson = run(3)
    assert max(lesson["forward_error"], lesson["backward_error"]) < 1e-12
    assert abs(lesson["shift"]) < 1e-10 and abs(lesson["scale"]) < 0.1 < abs(lesson["dy"].sum())
    assert np.allclose(lesson["running"][-1], (lesson["MEAN"], lesson["STD"] ** 2), rtol=0.1)
    assert lesson["change"]["eval"] == 0 and lesson["change"]["train"] > 1
    assert lesson["early"].mean() > 1


def test_04_all_rungs_compute_the_same(run):
    errors = run(4)["errors"]
    assert set(errors) == {"naive", "im2col", "bands", "winograd", "thin"}
    assert max(error for name, error in errors.items() if name != "winograd") < 2e-6
    assert 2e-6 < errors["winograd"] < 1e-4  # one digit of precision


def test_05_muon_does_not_mind_an_oblique_valley(run):
    final = {key: loss for key, (loss, _) in run(5)["final"].items()}
    assert final["Adam", "axes"] < 1e-8 and final["Muon", "axes"] < 1e-6
    assert final["Muon", "oblique"] < final["Adam", "oblique"] / 100
    assert final["Adam", "oblique"] < final["gradient descent", "oblique"]


def test_06_the_gan_breaks_in_both_ways_and_is_mended(run):
    found = run(6)["found"]
    healthy, wins, mended, collapse = found.values()
    assert healthy["on the ring"] > 0.85 and healthy["blobs"] >= 6
    assert wins["D(fake)"] < 1e-3 < 0.99 < wins["D(real)"] and wins["on the ring"] < 0.01
    assert wins["gradient norm"] < 1e-2 * healthy["gradient norm"]
    assert mended["on the ring"] > 0.5 and mended["blobs"] >= 4 and mended["D(fake)"] > 0.1
    assert collapse["blobs"] <= 4 < healthy["blobs"]  # of 8
    assert collapse["D(fake)"] > 0.3 and collapse["D(real)"] < 0.7


def test_07_only_logits_keep_loss_and_gradient(run):
    lesson = run(7)
    assert lesson["error"]["logit"] < 1e-5 and lesson["error"]["p"] == np.inf and lesson["error"]["p clipped"] > 80
    far = lesson["scale"] < -17
    assert (lesson["clipped"][far] == 0).all() and (np.abs(lesson["saturating"][far]) < 1e-6).all()
    assert (lesson["usual"][far] < -0.99).all()


def test_08_what_each_loss_pulls_at(run):
    lesson = run(8)
    found = lesson["found"]
    assert found["half-way"]["adversarial"][0] > 10 * found["SRResNet"]["adversarial"][0]  # deceived: hardly any
    for terms in found.values():
        assert terms["content"][1] > 0.2 > abs(terms["adversarial"][1])  # cosines with the pixels' gradient
    assert found["SRResNet"]["pixel"][2] > 0.85 > found["SRResNet"]["adversarial"][2]  # shares at edges


def test_09_icnr_starts_without_checkerboards(run):
    lesson = run(9)
    curves = lesson["curves"]
    assert curves["random"][0] > 0.05 > 0.005 > curves["ICNR"][0]
    assert curves["random"][-1] < 0.01
    assert lesson["covers"][2].tolist() == [2, 2, 4, 2, 4, 2]


def test_10_what_the_nets_see(run):
    lesson = run(10)
    assert lesson["logits"]["sharp"] > 2 > -2 > lesson["logits"]["blurred"]
    assert (
        lesson["weight"].max() > 0.005 and lesson["weight"].min() < 0.3 * lesson["weight"].max()
    )  # equal squared errors do not count alike
    first, *_, last = lesson["quality"].values()
    assert first > 20 > 10 > last


def test_11_folding_changes_rounding_alone(run):
    lesson = run(11)
    assert max(lesson["norm_error"], lesson["shuffle_error"]) < 1e-12 and lesson["net_error"] < 1e-4
    assert lesson["rows"]["folded"][0] < lesson["rows"]["as trained"][0] / 2


def test_12_kernel_ladder(run):
    lesson = run(12)
    costs = lesson["costs"]
    assert costs["reference"].bytes > 4 > 0.1 > costs["tf32"].bytes > costs["halo"].bytes
    assert costs["tf32"].instructions < costs["tiled"].instructions / 8
    if lesson["error"]:
        assert max(lesson["error"]["reference"], lesson["error"]["tiled"]) < 2e-6
        assert 2e-6 < lesson["error"]["tf32"] < 1e-3 and lesson["error"]["halo"] < 1e-3


def test_13_two_ranks_compute_what_one_process_does(run):
    lesson = run(13)
    assert lesson["gradient_error"] < 1e-12 and lesson["weight_error"] < 1e-12
    assert lesson["local_gradient_error"] > 1e-3 and lesson["local_weight_error"] > 1e-2
