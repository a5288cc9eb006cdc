"""The values that the training steps report."""

from copy import deepcopy

import numpy as np

from tinysrgan.losses import binary_cross_entropy, sigmoid
from tinysrgan.optimizers.adam import Adam
from tinysrgan.train import adversarial_step
from tinysrgan.training.config import Options
from tinysrgan.training.srgan import SRGAN


def test_both_probabilities_are_those_before_the_updates():
    """D(fake) and D(real) are D's outputs before its update, and D's running statistics see every image once."""
    options = Options(hr_size=32, blocks=1, filters=4, discriminator_filters=2, discriminator_dense=4)
    srgan = SRGAN.build(options, None, np)
    srgan.set_learning_rate(0.1)  # so that an update changes D's outputs
    rng = np.random.default_rng(0)
    lr, hr = (rng.uniform(-1, 1, (3, size, size, 3)).astype(np.float32) for size in (8, 32))
    before, fake = deepcopy(srgan.discriminator), srgan.generator.forward(lr)
    results = adversarial_step(srgan, lr, hr)
    for name, images in (("fake", fake), ("real", hr)):
        assert results[f"D({name})"] == sigmoid(deepcopy(before).forward(images)).mean()
        assert abs(results[f"D({name})"] - sigmoid(deepcopy(srgan.discriminator).forward(images)).mean()) > 0.01

    optimizer = Adam(before.parameters(), 0.1)
    for images, label in ((fake, 0), (hr, 1)):
        before.backward(binary_cross_entropy(before.forward(images), label)[1])
        optimizer.step()
    for name, tensor in before.tensors().items():
        assert (tensor.value == srgan.discriminator.tensors()[name].value).all(), name
