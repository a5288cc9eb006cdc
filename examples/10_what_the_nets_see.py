"""Lesson 10: what the discriminator sees, and what features keep of a picture.

    python examples/10_what_the_nets_see.py [picture.png [vgg19.h5]]

Where does the discriminator look? Blur one part of a real picture after the other, and note how far its logit falls
(occlusion sensitivity). What do the features of a layer keep? Begin with noise and move its pixels until its features
match (feature inversion): what the layer cannot tell apart stays noise. VGG19's weights are 80 MB, so without
them the second question goes to the discriminator as well. Read next: tinysrgan/models/discriminator.py and vgg19.py.
"""

import sys
from pathlib import Path

import numpy as np

from tinysrgan.core.paths import WEIGHTS
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.images import enlarge, to_uint8, to_unit
from tinysrgan.formats.keras.weights import load_vgg19
from tinysrgan.layers import Parameter, Sequential
from tinysrgan.losses import binary_cross_entropy, mean_squared_error
from tinysrgan.metrics.figures import save_picture, strip
from tinysrgan.metrics.psnr_ssim import psnr
from tinysrgan.models import Discriminator
from tinysrgan.optimizers.adam import Adam

rng = np.random.default_rng(0)
STEPS, SIDE, PATCH = 60, 64, 8

# ---------------------------------------------------------------- a discriminator of sharp and blurred codes

pairs = ImagePairs(sorted((WEIGHTS.parent / "data" / "qr").glob("mixed-*-v1.png")), hr_size=SIDE)


def batch(step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sharp codes, and what bicubic interpolation makes of them from a quarter of the size: (size, SIDE, SIDE, 3)."""
    lr, hr = pairs.batch(step, size)
    return hr, to_unit(np.stack([enlarge(image, 4) for image in to_uint8(lr)]))


discriminator = Discriminator(SIDE, filters=8, dense=32, seed=0)
optimizer = Adam(discriminator.parameters(), 1e-3)
for step in range(STEPS):
    for label, images in zip((1, 0), batch(step, 6), strict=True):
        discriminator.backward(binary_cross_entropy(discriminator.forward(images), label)[1])
    optimizer.step()
sharp, blurred = batch(STEPS, 1)
discriminator.eval()
logits = {name: float(discriminator.forward(x)[0, 0]) for name, x in (("sharp", sharp), ("blurred", blurred))}
print(f"logits: {logits['sharp']:.1f} for a sharp code, {logits['blurred']:.1f} for a blurred one")

# ---------------------------------------------------------------- occlusion sensitivity

n = SIDE // PATCH
variants = np.repeat(sharp, n * n, axis=0)
for i, variant in enumerate(variants):
    place = tuple(slice(PATCH * k, PATCH * (k + 1)) for k in divmod(i, n))
    variant[place] = blurred[0][place]
fall = logits["sharp"] - discriminator.forward(variants)[:, 0]
change = ((variants - sharp) ** 2).sum((1, 2, 3))  # what mean squared error sees of the same blur
worst, changed = int(fall.argmax()), change > 0.1 * change.max()
weight = fall[changed] / change[changed]
print(f"blurring one 8x8 patch lowers the logit by up to {fall.max():.2f} (row {PATCH * (worst // n)}, column "
      f"{PATCH * (worst % n)})")  # fmt: skip
print(f"a unit of squared error lowers it by {weight.min():.3f} to {weight.max():.3f}, depending on the patch")
print("The discriminator has no list of pixels to compare with: it judges what codes look like.\n")

# ---------------------------------------------------------------- what features keep

if len(sys.argv) > 2:
    layers = load_vgg19(Path(sys.argv[2]), "block3_conv4").chain
    depths = {name: Sequential(*list(layers.values())[: i + 1]) for i, name in enumerate(layers) if i in (1, 4, 10)}
else:
    head, *blocks = discriminator["head"], *discriminator["body"].children().values()
    depths = {f"layer {1 + count}": Sequential(head, *blocks[:count]) for count in (0, 2, 5)}
pictures, quality = {}, {}
print("noise, moved until its features are those of the sharp code")
for name, net in depths.items():
    net.freeze().train()
    features = net.forward(sharp)
    picture = Parameter(rng.uniform(-0.5, 0.5, sharp.shape).astype(np.float32))
    optimizer = Adam({"picture": picture}, 0.05)
    for _ in range(60):
        loss, gradient = mean_squared_error(net.forward(picture.value), features)
        picture.grad += net.backward(gradient)
        optimizer.step()
    pictures[name] = to_uint8(picture.value[0])
    quality[name] = psnr(pictures[name], to_uint8(sharp[0]))
    print(f"  {name:16s}{np.prod(features.shape):8d} features: the picture comes back with {quality[name]:5.1f} dB")
print("The deeper the layer, the less of each pixel it keeps: a content loss on it forgives what it does not keep.")

if len(sys.argv) > 1:
    maps = {"D's sensitivity": fall.clip(0) / fall.max(), "squared error": change / change.max()}
    pictures = (
        {"sharp": to_uint8(sharp[0]), "blurred": to_uint8(blurred[0])}
        | {
            name: np.kron(np.uint8(255 - 255 * m.reshape(n, n)), np.ones((PATCH, PATCH), np.uint8))
            for name, m in maps.items()
        }
        | pictures
    )
    row = [np.kron(image, np.ones((3, 3, 1)[: image.ndim], np.uint8)) for image in pictures.values()]
    save_picture(strip([row], list(pictures)), sys.argv[1])
    print("drawn in", sys.argv[1])
