"""PSNR and SSIM compared with scikit-image and with values computed by hand."""

import math

import numpy as np
import pytest

from tinysrgan.metrics.psnr_ssim import crop_border, luma, psnr, ssim


def pictures(shape, dtype=np.uint8, seed=0):
    """Return a picture with smooth and detailed parts and a noisy copy of it, in 0..255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = 128 + 100 * np.sin(x / 9) * np.cos(y / 7)
    a = smooth.reshape(smooth.shape + (1,) * (len(shape) - 2)) + 20 * rng.standard_normal(shape)
    b = a + 15 * rng.standard_normal(shape)
    return tuple(np.clip(image, 0, 255).astype(dtype) for image in (a, b))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(48, 37, 3), (11, 11, 3), (40, 64), (20, 30, 1)])
def test_same_as_scikit_image(shape, dtype):
    reference = pytest.importorskip("skimage.metrics")
    a, b = pictures(shape, dtype)
    expected = reference.structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=-1 if len(shape) == 3 else None,
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-4)
    assert psnr(a, b) == pytest.approx(reference.peak_signal_noise_ratio(a, b, data_range=255), abs=1e-4)


def test_psnr_by_hand():
    a = np.full((5, 4, 3), 100, np.uint8)
    assert psnr(a, a + np.uint8(10)) == pytest.approx(20 * math.log10(25.5))
    assert psnr(a, a - np.uint8(10)) == pytest.approx(20 * math.log10(25.5))  # uint8 must not wrap around
    assert psnr(np.zeros((2, 2)), np.ones((2, 2)), peak=1) == 0
    one_pixel = a.copy()
    one_pixel[0, 0, 0] += 60  # mean square 60^2 / 60 = 60
    assert psnr(a, one_pixel) == pytest.approx(10 * math.log10(255**2 / 60))


def test_ssim_by_hand():
    """Flat images have no variance: SSIM is (2 m n + c1) / (m^2 + n^2 + c1)."""
    a, b = np.full((16, 16), 100, np.uint8), np.full((16, 16), 150, np.uint8)
    c1 = 2.55**2
    assert ssim(a, b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_ssim_leaves_out_the_border_that_no_window_is_centred_on():
    a, b = pictures((15, 15))
    changed = b.copy()
    changed[0, 0] = 255 - changed[0, 0]
    window = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    assert abs(ssim(a, changed) - ssim(a, b)) < (window[0] / window.sum()) ** 2  # a corner has almost no weight


def test_identical_images():
    a, _ = pictures((20, 20, 3))
    assert psnr(a, a.copy()) == math.inf
    assert ssim(a, a.copy()) == pytest.approx(1, abs=1e-12)


def test_symmetric_and_scaled_by_peak():
    a, b = pictures((24, 24, 3), np.float64)
    assert psnr(a, b) == pytest.approx(psnr(b, a))
    assert ssim(a, b) == pytest.approx(ssim(b, a))
    assert psnr(a / 255, b / 255, peak=1) == pytest.approx(psnr(a, b))
    assert ssim(a / 255, b / 255, peak=1) == pytest.approx(ssim(a, b))


def test_arguments_are_left_alone():
    a, b = pictures((20, 20, 3), np.float64)
    before = a.copy(), b.copy()
    psnr(a, b), ssim(a, b), luma(a), crop_border(a, 4)
    assert np.array_equal(a, before[0]) and np.array_equal(b, before[1])


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_shapes_that_differ(measure):
    with pytest.raises(ValueError, match=r"^Only images of one shape.*\(20, 20, 3\) and \(20, 21, 3\)\.$"):
        measure(np.zeros((20, 20, 3)), np.zeros((20, 21, 3)))
    with pytest.raises(ValueError, match="one shape"):  # these shapes would broadcast
        measure(np.zeros((20, 20, 3)), np.zeros((20, 20, 1)))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5, 3), (20, 20, 0), (20,), (1, 20, 20, 3)])
@pytest.mark.parametrize("measure", [psnr, ssim])
def test_what_is_no_image(measure, shape):
    with pytest.raises(ValueError, match="An image is"):
        measure(np.zeros(shape), np.zeros(shape))


def test_ssim_needs_room_for_its_window():
    with pytest.raises(ValueError, match="11x11 pixels, not 10x12"):
        ssim(np.zeros((12, 10)), np.zeros((12, 10)))


def test_luma_is_matlabs():
    rgb = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(rgb) == pytest.approx(np.array([[16, 235, 81.481, 144.553, 40.966]]))
    assert luma(rgb.astype(np.float64)) == pytest.approx(luma(rgb))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (4, 4, 1)])
def test_luma_needs_three_channels(shape):
    with pytest.raises(ValueError, match="RGB"):
        luma(np.zeros(shape))


def test_crop_border():
    image = np.arange(5 * 7).reshape(5, 7)
    assert np.array_equal(crop_border(image, 2), image[2:3, 2:5])
    assert np.array_equal(crop_border(image, 0), image)
    assert crop_border(np.zeros((10, 12, 3)), 4).shape == (2, 4, 3)


@pytest.mark.parametrize("border", [-1, 4, 5, 9])
def test_crop_border_that_leaves_nothing(border):
    with pytest.raises(ValueError, match=f"border of {border} pixels.*12x8"):
        crop_border(np.zeros((8, 12)), border)


def test_the_papers_protocol_ignores_border_and_chroma():
    a = np.full((16, 16, 3), 100, np.uint8)
    b = a.copy()
    b[:4] = 0
    assert psnr(a, b) < 20
    assert psnr(luma(crop_border(a, 4)), luma(crop_border(b, 4))) == math.inf
