"""The three nets are those of the papers: layers, names, sizes and parameter counts."""

import re

import numpy as np
import pytest

from tinysrgan.core.value_ranges import RANGES
from tinysrgan.layers import BatchNorm, Conv2D, LeakyReLU, MaxPool, PixelShuffle, PReLU, Tanh, Upsample
from tinysrgan.models import VGG19, Discriminator, Generator
from tinysrgan.models.vgg19 import LAYERS, Preprocess


def parameter_count(net):
    return sum(parameter.value.size for parameter in net.parameters().values())


def conv(kernel_size, in_channels, out_channels):
    """Parameter count of a convolution: weights and biases."""
    return kernel_size**2 * in_channels * out_channels + out_channels


def norm(channels):
    """Parameter count of batch-norm: gamma and beta."""
    return 2 * channels


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def of_kind(net, kind):
    return [layer for layer in net.layers() if isinstance(layer, kind)]


# ---------------------------------------------------------------- generator


def test_parameter_count_of_the_papers_generator():
    """Ledig et al. 2017, figure 4: B = 16 blocks, 64 feature maps, x4."""
    prelu = 64
    head = conv(9, 3, 64) + prelu
    block = conv(3, 64, 64) + norm(64) + prelu + conv(3, 64, 64) + norm(64)
    after_blocks = conv(3, 64, 64) + norm(64)
    upscale = conv(3, 64, 256) + prelu
    tail = conv(9, 64, 3)
    assert head + 16 * block + after_blocks + 2 * upscale + tail == 1_550_659
    assert parameter_count(Generator(16, 64)) == 1_550_659


def test_parameter_count_of_the_articles_generator():
    """Nearest upsampling keeps all 256 channels, and PReLU has a slope for each."""
    head = conv(9, 3, 64) + 64
    block = 2 * (conv(3, 64, 64) + norm(64)) + 64
    after_blocks = conv(3, 64, 64) + norm(64)
    upscales = conv(3, 64, 256) + 256 + conv(3, 256, 256) + 256
    tail = conv(9, 256, 3)
    assert parameter_count(Generator(16, 64, upscale="nearest")) == (head + 16 * block + after_blocks + upscales + tail)


def test_generator_defaults_are_the_papers():
    config = {"blocks": 16, "filters": 64, "scale": 4, "upscale": "shuffle", "output": "linear"}
    assert Generator().config == config | {"value_range": "signed:signed", "grey": False, "norm": True}


@pytest.mark.parametrize("inside", RANGES)
@pytest.mark.parametrize("outside", RANGES)
def test_value_range_only_rescales_input_and_output(inside, outside):
    low, high = RANGES[inside]
    x = np.random.default_rng(0).uniform(-1, 1, (1, 5, 4, 3)).astype(np.float32)
    plain = Generator(1, 4, 2, seed=1).eval().forward(low + (high - low) * (x + 1) / 2)
    low, high = RANGES[outside]
    net = Generator(1, 4, 2, value_range=f"{inside}:{outside}", seed=1).eval()
    np.testing.assert_allclose(net.forward(x), 2 * (plain - low) / (high - low) - 1, rtol=1e-4, atol=1e-5)
    assert net.forward(x).dtype == np.float32


def test_generator_layers_are_the_papers():
    net = Generator(2, 8)
    block = ["Conv2D", "BatchNorm", "PReLU", "Conv2D", "BatchNorm"]
    kinds = [type(layer).__name__ for layer in net.layers() if not layer.children()]
    assert kinds == [
        *["Conv2D", "PReLU"],
        *block,
        *block,
        *["Conv2D", "BatchNorm"],
        *["Conv2D", "PixelShuffle", "PReLU"] * 2,
        "Conv2D",
    ]
    assert [layer.w.value.shape[0] for layer in of_kind(net, Conv2D)] == [9, 3, 3, 3, 3, 3, 3, 3, 9]
    assert {layer.stride for layer in of_kind(net, Conv2D)} == {1}


@pytest.mark.parametrize("upscale", ["shuffle", "nearest"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_generator_upscales_by_its_scale(scale, upscale):
    net = Generator(1, 4, scale, upscale, seed=0)
    assert net.scale == scale
    assert net.eval().forward(images(2, 5, 3, 3)).shape == (2, 5 * scale, 3 * scale, 3)
    assert len(of_kind(net, PixelShuffle if upscale == "shuffle" else Upsample)) == {2: 1, 4: 2, 8: 3}[scale]


def test_upscale_convolutions_start_with_icnr():
    net = Generator(1, 4, 8)
    for i in "012":
        w = net["upscale"][i]["conv"].w.value
        cells = w.reshape(*w.shape[:3], 4, 4)
        assert (cells == cells[..., :1]).all()


def test_generator_without_blocks_upscales():
    assert Generator(0, 4).forward(images(1, 3, 3, 3)).shape == (1, 12, 12, 3)


def test_skip_connection_spans_all_blocks():
    """If the last batch-norm's gamma is zero, the residual blocks have no effect, but the image still has."""
    net, other = Generator(2, 4, seed=1), Generator(2, 4, seed=1)
    other["body"]["0"]["conv1"].w.value *= -1
    x = images(1, 4, 4, 3)
    assert (net.forward(x) != other.forward(x)).any()
    for generator in (net, other):
        generator["body"]["norm"].gamma.value[:] = 0
    np.testing.assert_array_equal(net.forward(x), other.forward(x))
    assert (net.forward(x) != net.forward(-x)).any()


def test_tanh_keeps_the_output_in_range():
    x = 100 * images(1, 4, 4, 3)
    assert np.abs(Generator(1, 4, seed=1).forward(x)).max() > 1
    net = Generator(1, 4, output="tanh", seed=1)
    assert np.abs(net.forward(x)).max() <= 1
    assert list(net.children())[-1] == "output"
    assert isinstance(net["output"], Tanh)


@pytest.mark.parametrize(
    "make", [lambda seed: Generator(2, 4, seed=seed), lambda seed: Discriminator(16, 4, 8, seed=seed)]
)
def test_same_seed_gives_the_same_net(make):
    first, same, other = (make(seed).parameters() for seed in (1, 1, 2))
    for name, parameter in first.items():
        np.testing.assert_array_equal(parameter.value, same[name].value)
        if name.endswith(".w"):
            assert (parameter.value != other[name].value).any(), name


def test_layers_of_one_net_start_with_different_weights():
    weights = [layer.w.value for layer in of_kind(Generator(3, 4, seed=1)["body"], Conv2D)]
    assert all((w != weights[0]).any() for w in weights[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 3}, "The generator's scale is 2, 4 or 8, not 3."),
        ({"scale": 1}, "The generator's scale is 2, 4 or 8, not 1."),
        ({"upscale": "bilinear"}, "The generator's upscale is 'shuffle' or 'nearest', not 'bilinear'."),
        ({"output": "relu"}, "The generator's output is 'linear', 'tanh' or 'sigmoid', not 'relu'."),
    ],
)
def test_wrong_option_raises_one_sentence(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Generator(1, 4, **options)


def test_wrong_channels_raise_and_name_the_layer():
    with pytest.raises(ValueError, match=r"Conv2D 'head\.conv' takes \(N, H, W, 3\), not \(1, 8, 8, 4\)"):
        Generator(1, 4).forward(images(1, 8, 8, 4))


# ---------------------------------------------------------------- discriminator

# In channels, out channels and stride of the paper's eight convolutions (figure 4).
DISCRIMINATOR = [
    (3, 64, 1),
    (64, 64, 2),
    (64, 128, 1),
    (128, 128, 2),
    (128, 256, 1),
    (256, 256, 2),
    (256, 512, 1),
    (512, 512, 2),
]


def test_parameter_count_of_the_papers_discriminator():
    convolutions = sum(conv(3, *channels) for *channels, _ in DISCRIMINATOR)
    norms = sum(norm(channels) for _, channels, _ in DISCRIMINATOR[1:])  # the first has none
    dense = 8 * 8 * 512 * 1024 + 1024  # four strides of 2: 128 / 16 = 8
    assert parameter_count(Discriminator(128)) == convolutions + norms + dense + 1024 + 1 == 38_245_569


def test_discriminator_layers_are_the_papers():
    net = Discriminator(16)
    found = [(*layer.w.value.shape[2:], layer.stride) for layer in of_kind(net, Conv2D)]
    assert found == DISCRIMINATOR
    assert [len(layer.gamma.value) for layer in of_kind(net, BatchNorm)] == [64, 128, 128, 256, 256, 512, 512]
    assert [layer.slope for layer in of_kind(net, LeakyReLU)] == [0.2] * 9
    assert not of_kind(net, PReLU)


def test_slope_applies_only_after_convolutions():
    assert [layer.slope for layer in of_kind(Discriminator(16, 2, 2, slope=0.3), LeakyReLU)] == [0.3] * 8 + [0.2]


@pytest.mark.parametrize(
    ("size", "side"),
    [(128, 8), (96, 6), (32, 2), (40, 3), (64, 4), (127, 8), (129, 9), (33, 3), (17, 2), (16, 1), (1, 1)],
)
def test_discriminator_accepts_any_image_size(size, side):
    net = Discriminator(size, 2, 3, seed=0)
    logits = net.forward(images(2, size, size, 3))
    assert logits.shape == (2, 1)
    assert net["dense"].w.value.shape == (side * side * 16, 3)
    assert net.backward(np.ones_like(logits)).shape == (2, size, size, 3)


def test_discriminator_returns_logits():
    """The output is not limited to 0..1, because the sigmoid is part of the loss."""
    net = Discriminator(16, 2, 3, seed=0)
    net["logit"].b.value[:] = -40
    assert (net.forward(images(2, 16, 16, 3)) < -30).all()


def test_wrong_image_size_raises_and_names_the_layer():
    with pytest.raises(ValueError, match=r"Dense 'dense' takes \(N, 64\), not \(1, 144\)"):
        Discriminator(32, 2, 3).forward(images(1, 48, 48, 3))


# ---------------------------------------------------------------- VGG19

VGG_CONVOLUTIONS = {
    "block1_conv1": (3, 64),
    "block1_conv2": (64, 64),
    "block2_conv1": (64, 128),
    "block2_conv2": (128, 128),
    "block3_conv1": (128, 256),
    "block3_conv2": (256, 256),
    "block3_conv3": (256, 256),
    "block3_conv4": (256, 256),
    "block4_conv1": (256, 512),
    "block4_conv2": (512, 512),
    "block4_conv3": (512, 512),
    "block4_conv4": (512, 512),
    "block5_conv1": (512, 512),
    "block5_conv2": (512, 512),
    "block5_conv3": (512, 512),
    "block5_conv4": (512, 512),
}


def test_vgg19_layers_have_the_names_of_keras():
    names = list(LAYERS)
    assert [name for name in names if "conv" in name] == list(VGG_CONVOLUTIONS)
    assert [names.index(f"block{block}_pool") for block in range(1, 6)] == [2, 5, 10, 15, 20]
    assert ["input", *names][10] == "block3_conv4", "the article's layer 10, in Keras' numbering"


def test_parameter_count_of_vgg19():
    """Keras gives 20,024,384 without the dense layers."""
    net = VGG19("block5_pool")
    assert parameter_count(net) == sum(conv(3, *channels) for channels in VGG_CONVOLUTIONS.values()) == 20_024_384
    assert {name: layer.w.value.shape for name, layer in named_convolutions(net).items()} == {
        name: (3, 3, *channels) for name, channels in VGG_CONVOLUTIONS.items()
    }


def named_convolutions(net):
    return {name: child["conv"] for name, child in net.children().items() if name.partition("_")[2].startswith("conv")}


@pytest.mark.parametrize("cut", list(LAYERS)[:11])
def test_vgg19_ends_at_the_cut(cut):
    net = VGG19(cut)
    assert list(net.children()) == ["preprocess", *list(LAYERS)[: list(LAYERS).index(cut) + 1]]
    halvings = int(cut[5]) - (0 if cut.endswith("pool") else 1)
    features = net.eval().forward(images(1, 17, 12, 3))
    assert features.shape == (1, 17 >> halvings, 12 >> halvings, {"1": 64, "2": 128, "3": 256}[cut[5]])
    assert (features >= 0).all(), "features are taken after the ReLU"
    assert (features > 0).any()


def test_default_cut_is_the_articles():
    net = VGG19()
    assert net.cut == "block3_conv4"
    assert len(of_kind(net, MaxPool)) == 2


def test_vgg19_is_frozen():
    net = VGG19("block1_conv2")
    features = net.forward(images(1, 6, 6, 3))
    assert net.backward(np.ones_like(features)).any()
    assert not any(parameter.grad.any() for parameter in net.parameters().values())


@pytest.mark.parametrize("cut", ["block3_conv5", "block6_conv1", "fc1", ""])
def test_unknown_cut_raises_and_lists_the_layers(cut):
    with pytest.raises(ValueError, match=f"^VGG19 has no layer '{cut}'; it has block1_conv1, .*, block5_pool.$"):
        VGG19(cut)


def test_preprocess_of_one_pixel():
    """Red 1 becomes 255, green 0 becomes 127.5, blue -1 becomes 0. In BGR order, ImageNet's mean is subtracted."""
    pixel = np.array([1.0, 0.0, -1.0]).reshape(1, 1, 1, 3)
    layer = Preprocess()
    np.testing.assert_allclose(layer.forward(pixel)[0, 0, 0], [-103.939, 10.721, 131.32], atol=1e-12)
    blue_green_red = np.array([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3)
    assert layer.backward(blue_green_red)[0, 0, 0].tolist() == [12750, 1275, 127.5]
