"""Muon compared with its definition by singular values and with PyTorch's, and in whole runs."""

import inspect

import numpy as np
import pytest
from test_train import SMALL, arrays, assert_same_state, codes, train  # noqa: F401  (codes is a fixture)

from tinysrgan.layers import Parameter
from tinysrgan.models import Generator
from tinysrgan.optimizers import muon
from tinysrgan.optimizers.adam import Adam
from tinysrgan.optimizers.muon import NEWTON_SCHULZ, Muon, is_matrix, orthogonal


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal elements, float64."""
    return np.random.default_rng(seed).standard_normal(shape)


# ---------------------------------------------------------------- orthogonal


@pytest.mark.parametrize("shape", [(5, 5), (36, 4), (4, 36), (288, 32), (1, 7), (7, 1)])
def test_orthogonal_keeps_singular_vectors_and_maps_singular_values_by_the_polynomial(shape):
    matrix = normal(*shape)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s /= np.linalg.norm(matrix)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    np.testing.assert_allclose(orthogonal(matrix), u * s @ vt, atol=1e-10)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-3)])
@pytest.mark.parametrize("scale", [1e-12, 1, 1e12])
def test_singular_values_from_a_hundredth_up_become_about_1_at_any_scale(dtype, tolerance, scale):
    u, vt = np.linalg.qr(normal(60, 20))[0], np.linalg.qr(normal(20, 20, seed=1))[0]
    matrix = (u * np.geomspace(0.01, 1, 20) @ vt * scale).astype(dtype)
    y = orthogonal(matrix)
    assert y.dtype == dtype
    s = np.linalg.svd(y, compute_uv=False)
    assert s.min() > 0.65 and s.max() < 1.25
    np.testing.assert_allclose(y, orthogonal(matrix.astype(float)), atol=tolerance)


def test_zero_gradient_changes_nothing():
    assert not orthogonal(np.zeros((4, 3))).any()
    parameter = Parameter(normal(3, 3, 4, 4))
    before = parameter.value.copy()
    Muon({"w": parameter}).step()
    assert (parameter.value == before).all()


# ---------------------------------------------------------------- the optimizer


def test_matrices_are_the_convolutions_between_feature_maps():
    generator = Generator(2, 8)
    assert sorted(Muon(generator.parameters()).matrices) == [
        "body.0.conv1.w",
        "body.0.conv2.w",
        "body.1.conv1.w",
        "body.1.conv2.w",
        "body.conv.w",
        "upscale.0.conv.w",
        "upscale.1.conv.w",
    ]
    assert not is_matrix(normal(9, 9, 3, 64)) and not is_matrix(normal(9, 9, 64, 3)) and not is_matrix(normal(8, 8))


def test_adam_updates_all_other_parameters():
    ours, reference = Generator(1, 4, seed=1), Generator(1, 4, seed=1)
    optimizer, adam = Muon(ours.parameters(), 0.01), Adam(reference.parameters(), 0.01)
    for step in range(3):
        for i, (mine, other) in enumerate(
            zip(ours.parameters().values(), reference.parameters().values(), strict=True)
        ):
            mine.grad += normal(*mine.grad.shape, seed=100 * step + i).astype(np.float32)
            other.grad += mine.grad
        optimizer.step()
        adam.step()
    for name, parameter in ours.parameters().items():
        assert not parameter.grad.any(), name
        same = parameter.value.tobytes() == reference.parameters()[name].value.tobytes()
        assert same == (name not in optimizer.matrices), name


def check_five_steps() -> None:
    """Compare five steps with the formula in ``Muon``'s docstring."""
    parameter = Parameter(normal(3, 3, 4, 8))
    optimizer = Muon({"w": parameter}, learning_rate=0.1, momentum=0.9)
    expected, momentum = parameter.value.copy(), np.zeros((36, 8))
    for step in range(5):
        g = normal(36, 8, seed=step) * 10.0**step
        parameter.grad += g.reshape(3, 3, 4, 8)
        optimizer.step()
        momentum = 0.9 * momentum + g
        expected -= 0.1 * 0.2 * 6 * muon.orthogonal(g + 0.9 * momentum).reshape(expected.shape)
        np.testing.assert_allclose(parameter.value, expected, rtol=1e-12)
        assert not parameter.grad.any()


def test_five_steps_follow_the_formula():
    check_five_steps()


FAULTS = {
    "no Nesterov momentum": ("gradient + momentum * m", "m"),
    "no momentum": ("m *= momentum", "m *= 0"),
    "the gradient is not cleared": ("gradient[...] = 0", "pass"),
    "the step size does not grow with the matrix": ("max(direction.shape) ** 0.5", "1"),
    "the step follows the gradient": ("value -= ", "value += "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught(name, monkeypatch):
    right, wrong = FAULTS[name]
    source = inspect.getsource(muon.update)
    assert source.count(right) == 1
    scope: dict = {}
    exec(source.replace(right, wrong), vars(muon), scope)
    monkeypatch.setattr(muon, "update", scope["update"])
    with pytest.raises(AssertionError):
        check_five_steps()


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 3, 8, 32), (1, 1, 12, 40)])
def test_ten_steps_match_pytorch(shape):
    """The tolerance is 3 % of the distance moved, because PyTorch iterates in bfloat16."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    start = normal(*shape)
    ours = Parameter(start.copy())
    leaf = torch.tensor(start.reshape(-1, shape[-1]), requires_grad=True)
    optimizer = Muon({"w": ours}, 0.01)
    reference = torch.optim.Muon([leaf], 0.01, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    for step in range(10):
        ours.grad += normal(*shape, seed=1 + step)
        leaf.grad = torch.tensor(ours.grad.reshape(leaf.shape))
        optimizer.step()
        reference.step()
    distance = np.linalg.norm(ours.value - start)
    assert np.linalg.norm(ours.value.reshape(leaf.shape) - leaf.detach().numpy()) < 0.03 * distance


# ---------------------------------------------------------------- in a run


def test_resumed_run_equals_an_uninterrupted_one(codes, tmp_path):  # noqa: F811
    """Bit for bit: the checkpoint holds Muon's momentum. The preset's learning rate is constant."""
    options = ["--preset", "article", "--content-loss", "pixels", *SMALL, "--optimizer", "muon"]
    assert train(codes, *options, "--steps", 4, "--out", tmp_path / "whole") == 0
    assert train(codes, *options, "--steps", 2, "--out", tmp_path / "parts") == 0
    assert train("--resume", tmp_path / "parts", "--steps", 4) == 0
    assert_same_state(tmp_path / "whole" / "checkpoint.h5", tmp_path / "parts" / "checkpoint.h5")
    assert train(codes, *options, "--optimizer", "adam", "--steps", 4, "--out", tmp_path / "adam") == 0
    muons, adams = [arrays(tmp_path / name / "generator.h5") for name in ("whole", "adam")]
    assert not all((array == adams[name]).all() for name, array in muons.items())


def test_discriminator_is_trained_by_adam(codes, tmp_path):  # noqa: F811
    options = [*SMALL, "--optimizer", "muon", "--pretrain-steps", 1, "--steps", 1]
    assert train(codes, *options, "--out", tmp_path / "run") == 0
    names = arrays(tmp_path / "run" / "checkpoint.h5").keys()
    for name, w in (("generator", "body/0/conv1/w"), ("discriminator", "body/0/conv/w")):
        moments = [kind for kind in "mv" if f"adam_{name}/{kind}/{w}" in names]
        assert moments == (["m"] if name == "generator" else ["m", "v"])
