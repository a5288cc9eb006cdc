"""Ten whole adversarial training steps, beside the same ten in PyTorch: every parameter must stay the same."""

import numpy as np
import pytest

from tinysrgan.core.ranks import ALONE
from tinysrgan.layers import BatchNorm, Conv2D, Dense, LeakyReLU, PReLU, Tanh
from tinysrgan.losses import PIXEL_LOSSES, AdversarialLoss, FeatureLoss
from tinysrgan.models import VGG19, Discriminator, Generator
from tinysrgan.models.vgg19 import MEAN_BGR
from tinysrgan.ops.conv.padding import same
from tinysrgan.optimizers.adam import Adam
from tinysrgan.train import adversarial_step, pretrain_step
from tinysrgan.training.average import MovingAverage
from tinysrgan.training.config import Options
from tinysrgan.training.data_parallel import DataParallel
from tinysrgan.training.srgan import SRGAN

torch = pytest.importorskip("torch", reason="PyTorch, the reference of this test, is not installed")
functional = torch.nn.functional

RATE = 1e-3


class TorchNet:
    """One of our nets, layer by layer in PyTorch, on leaf tensors copied from its parameters."""

    def __init__(self, net, frozen=False):
        self.net = net
        self.leaves = {
            path: torch.tensor(parameter.value, requires_grad=not frozen)
            for path, parameter in net.parameters().items()
        }

    def __call__(self, x):
        return self.run(self.net, "", x.permute(0, 3, 1, 2))

    def run(self, layer, path, x):
        """x and the result are N C H W."""
        leaf = lambda name: self.leaves[path + name]  # noqa: E731
        kind = type(layer).__name__
        if kind in ("Sequential", "Residual", "Generator", "Discriminator", "VGG19"):
            y = x
            for name, child in layer.children().items():
                y = self.run(child, f"{path}{name}.", y)
            return x + y if kind == "Residual" else y
        if isinstance(layer, Conv2D):
            size, stride = leaf("w").shape[0], layer.stride
            rows, columns = same(x.shape[2], size, stride), same(x.shape[3], size, stride)
            padded = functional.pad(x, (columns.before, columns.after, rows.before, rows.after))
            return functional.conv2d(padded, leaf("w").permute(3, 2, 0, 1), leaf("b"), stride)
        if isinstance(layer, BatchNorm):
            return functional.batch_norm(x, None, None, leaf("gamma"), leaf("beta"), True, 0.0, layer.epsilon)
        if isinstance(layer, PReLU):
            return functional.prelu(x, leaf("slope"))
        if isinstance(layer, LeakyReLU):
            return functional.leaky_relu(x, layer.slope)
        if isinstance(layer, Dense):
            return x @ leaf("w") + leaf("b")
        if isinstance(layer, Tanh):
            return torch.tanh(x)
        if kind == "Preprocess":
            return (x.flip(1) + 1) * 127.5 - torch.tensor(MEAN_BGR, dtype=x.dtype)[:, None, None]
        simple = {
            "ReLU": functional.relu,
            "MaxPool": lambda x: functional.max_pool2d(x, 2),
            "PixelShuffle": lambda x: functional.pixel_shuffle(x, layer.factor),
            "Upsample": lambda x: functional.interpolate(x, scale_factor=layer.factor, mode="nearest"),
            "Flatten": lambda x: x.permute(0, 2, 3, 1).flatten(1),
        }
        return simple[kind](x)


def image(x):
    return x.permute(0, 2, 3, 1)


PIXEL_LOSSES_OF_TORCH = {
    "mse": functional.mse_loss,
    "bce": lambda y, target: functional.binary_cross_entropy((1 + y) / 2, (1 + target) / 2),
}


class TorchSRGAN:
    """The article's step, written with autograd."""

    def __init__(self, srgan, vgg, pixel_loss):
        self.pixel_loss = PIXEL_LOSSES_OF_TORCH[pixel_loss]
        self.generator, self.discriminator = TorchNet(srgan.generator), TorchNet(srgan.discriminator)
        self.vgg = TorchNet(vgg, frozen=True) if vgg else None
        adam = lambda net: torch.optim.Adam(net.leaves.values(), RATE, eps=1e-7)  # noqa: E731
        self.generator_optimizer, self.discriminator_optimizer = adam(self.generator), adam(self.discriminator)

    def pretrain_step(self, lr, hr):
        self.generator_optimizer.zero_grad()
        self.pixel_loss(image(self.generator(lr)), hr).backward()
        self.generator_optimizer.step()

    def adversarial_step(self, lr, hr):
        bce = functional.binary_cross_entropy_with_logits
        fake = image(self.generator(lr))
        for images, label in ((fake.detach(), torch.zeros), (hr, torch.ones)):
            self.discriminator_optimizer.zero_grad()
            logits = self.discriminator(images)
            bce(logits, label(logits.shape, dtype=lr.dtype)).backward()
            self.discriminator_optimizer.step()
        self.generator_optimizer.zero_grad()
        logits = self.discriminator(fake)
        content = functional.mse_loss(self.vgg(fake), self.vgg(hr)) if self.vgg else self.pixel_loss(fake, hr)
        (content + 1e-3 * bce(logits, torch.ones_like(logits))).backward()
        self.generator_optimizer.step()


@pytest.mark.parametrize("upscale", ["shuffle", "nearest"])
@pytest.mark.parametrize(("pixel_loss", "content"), [("mse", "pixels"), ("mse", "block2_conv1"), ("bce", "pixels")])
def test_ten_steps_as_in_pytorch(upscale, pixel_loss, content):
    vgg = VGG19(content).astype(np.float64) if content != "pixels" else None
    output = "tanh" if pixel_loss == "bce" else "linear"
    generator = Generator(2, 4, 4, upscale, output, seed=1).astype(np.float64)
    discriminator = Discriminator(32, 4, 8, seed=2).astype(np.float64)
    srgan = SRGAN(
        generator,
        discriminator,
        PIXEL_LOSSES[pixel_loss],
        {
            "content": (1.0, FeatureLoss(vgg) if vgg else PIXEL_LOSSES[pixel_loss]),
            "adversarial": (1e-3, AdversarialLoss(discriminator)),
        },
        Adam(generator.parameters(), RATE),
        Adam(discriminator.parameters(), RATE),
        Options(adversarial_weight=1e-3),
        DataParallel(ALONE, 2),
        MovingAverage(generator, 0.0),
    )
    reference = TorchSRGAN(srgan, vgg, pixel_loss)
    rng = np.random.default_rng(3)
    for step in range(12):
        lr, hr = rng.uniform(-1, 1, (3, 8, 8, 3)), rng.uniform(-1, 1, (3, 32, 32, 3))
        ours, theirs = (
            (pretrain_step, reference.pretrain_step) if step < 2 else (adversarial_step, reference.adversarial_step)
        )
        ours(srgan, lr, hr)
        theirs(torch.tensor(lr), torch.tensor(hr))

    for net, leaves in ((generator, reference.generator.leaves), (discriminator, reference.discriminator.leaves)):
        start = type(net)(**net.config, seed=1 if net is generator else 2).parameters()
        for path, parameter in net.parameters().items():
            np.testing.assert_allclose(parameter.value, leaves[path].detach(), rtol=1e-4, atol=1e-7, err_msg=path)
            if not path.endswith(".b"):  # a bias in front of batch-norm has no effect, so no gradient
                assert np.abs(parameter.value - start[path].value).max() > RATE, f"{path} was not trained"
