"""Lesson 8: SRResNet against SRGAN on one code: what does each term of the generator's loss pull at?

    python examples/08_what_losses_pull_at.py [picture.png [vgg19.h5]]

The gradient of a loss with respect to the picture says of every pixel whether it should be brighter or darker. Three
terms ask three questions: is each pixel right (pixel), are the features right that a trained net sees (content), does
it look real (adversarial). The generators come from weights/; the discriminator is trained here. VGG19's weights are
80 MB, so the discriminator's first convolutions stand in for them. Read next: tinysrgan/losses.py.
"""

import sys
from pathlib import Path

import numpy as np

from tinysrgan.core.paths import WEIGHTS
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.images import enlarge, to_uint8, to_unit
from tinysrgan.formats.checkpoint import load_generator
from tinysrgan.formats.keras.weights import load_vgg19
from tinysrgan.inference.fuse import fuse
from tinysrgan.layers import LeakyReLU, Sequential, frozen
from tinysrgan.losses import AdversarialLoss, FeatureLoss, binary_cross_entropy, mean_squared_error, sigmoid
from tinysrgan.metrics.figures import save_picture, strip
from tinysrgan.metrics.psnr_ssim import psnr
from tinysrgan.models import Discriminator
from tinysrgan.optimizers.adam import Adam

STEPS, CODES = 40, 24
MIDDLE = slice(32, 96)  # the part of each picture, 64 x 64 pixels, that everything below looks at

# ---------------------------------------------------------------- codes of version 3, as both generators enlarge them

pairs = ImagePairs(sorted((WEIGHTS.parent / "data" / "qr").glob("mixed-*-v3.png")), hr_size=128)
lr, real = pairs.batch(0, CODES)
fakes = {
    name: fuse(load_generator(WEIGHTS / file).eval()).forward(lr)
    for name, file in (("SRResNet", "qr_x4_srresnet.h5"), ("SRGAN", "qr_x4.h5"))
}


bicubic = to_unit(np.stack([enlarge(image, 4) for image in to_uint8(lr)]))
fakes = {"half-way": (bicubic + fakes["SRResNet"]) / 2} | fakes  # as a generator draws them while it still learns
real, *parts = (np.ascontiguousarray(images[:, MIDDLE, MIDDLE]) for images in (real, *fakes.values()))
fakes = dict(zip(fakes, parts, strict=True))

# ---------------------------------------------------------------- a discriminator that knows the half-way pictures

discriminator = Discriminator(64, filters=8, dense=32, seed=0)
optimizer = Adam(discriminator.parameters(), 1e-3)
for step in range(STEPS):
    chosen = np.arange(6 * step, 6 * step + 6) % CODES
    probabilities = []
    for label, images in ((0, fakes["half-way"]), (1, real)):
        logits = discriminator.forward(images[chosen])
        discriminator.backward(binary_cross_entropy(logits, label)[1])
        probabilities.append(float(sigmoid(logits).mean()))
    optimizer.step()
    if step % 20 == 19:
        print(f"step {step + 1}: D(half-way) {probabilities[0]:.2f}, D(real) {probabilities[1]:.2f}")

if len(sys.argv) > 2:
    seeing, source = load_vgg19(Path(sys.argv[2]), "block3_conv4"), "VGG19's block3_conv4"
else:  # before any batch-norm, so that a picture's features do not depend on the other pictures
    second = discriminator["body"].children()["0"].children()["conv"]
    seeing, source = Sequential(discriminator["head"], second, LeakyReLU()).freeze(), "the discriminator's second layer"
print(f"content: mean squared error of the features of {source}\n")

# ---------------------------------------------------------------- one part of the codes, three gradients

terms = {
    "pixel": (1.0, mean_squared_error),
    "content": (1.0, FeatureLoss(seeing)),
    "adversarial": (1e-3, AdversarialLoss(discriminator)),  # the weights of the paper
}
target = real[:6]
edges = np.zeros(target.shape, bool)  # pixels with a neighbour of the other colour
edges[:, 1:-1, 1:-1] = np.maximum(
    np.abs(target[:, 2:, 1:-1] - target[:, :-2, 1:-1]), np.abs(target[:, 1:-1, 2:] - target[:, 1:-1, :-2])
) > 0.5  # fmt: skip
found: dict[str, dict[str, tuple[float, float, float]]] = {}
rows = []
print(f"{100 * edges.mean():.0f} % of the pixels are at edges")
print(f"{'weighted gradient norm':>65s}{'cosine with pixel':>20s}{'at edges':>10s}")
for name, images in fakes.items():
    fake = images[:6]
    with frozen(discriminator):
        probability = float(sigmoid(discriminator.forward(fake)).mean())
    print(f"{name}: PSNR {psnr(to_uint8(fake[0]), to_uint8(target[0])):.1f} dB, D {probability:.2f}")
    gradients = {term: -loss(fake, target)[1] for term, (_, loss) in terms.items()}  # training goes against them
    found[name], row = {}, [to_uint8(fake[0])]
    for term, gradient in gradients.items():
        size = float(np.linalg.norm(gradient))
        cosine = float((gradient * gradients["pixel"]).sum()) / size / float(np.linalg.norm(gradients["pixel"]))
        found[name][term] = terms[term][0] * size, cosine, float((gradient**2)[edges].sum()) / size**2
        print(f"{term:>32s}{found[name][term][0]:33.1e}{cosine:20.2f}{100 * found[name][term][2]:8.0f} %")
        wish = gradient[0].mean(axis=2) / (3 * gradient[0].std())  # red: brighter, blue: darker
        colours = np.minimum(wish, 0) + 0.5, 0.5 - np.abs(wish), 0.5 - np.maximum(wish, 0)
        row.append(to_uint8(2 * np.stack(colours, axis=2)))
    rows.append([*row, to_uint8(target[0])])
print("The pixel term's gradient is large where a pixel is wrong. The adversarial one's leads to pictures that look")
print("like codes, no matter which: it is unrelated to the pixels' (cosine 0). Its norm is theirs where D knows the")
print("fake, and a hundredth of that where D is deceived.")

if len(sys.argv) > 1:
    large = [[np.kron(image, np.ones((3, 3, 1), np.uint8)) for image in row] for row in rows]
    save_picture(strip(large, ["picture", *terms, "original"]), sys.argv[1])
    print("drawn in", sys.argv[1])
