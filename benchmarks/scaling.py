"""How far does data-parallel training scale? ``python -m benchmarks.scaling``, a model, about five minutes.

The time of an adversarial step is the compute of a rank's images, which is measured here on one thread, plus what the
step sends, which is calculated:

* the gradients: one message a net and update (the discriminator has two updates a step);
* instead of the gradient of the discriminator's first dense layer, the images at both of its sides, while these are
  less: the layer is split over the ranks, and so is what the rank does whatever its images;
* batch-norm's sums: one short message a layer and pass, of which only the latency counts.

An Allreduce of S bytes over N ranks takes 2 log2(N) latencies and 2 (N - 1) / N S / bandwidth (Rabenseifner's
algorithm); a short one log2(N) latencies. Nothing overlaps. A network is a link for each rank; its latency is an
assumption: TCP on 1 and 10 Gb/s, RDMA on 100 Gb/s.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from math import log2, prod

import numpy as np

from tinysrgan.core.cli import real
from tinysrgan.layers import BatchNorm, Dense, Layer
from tinysrgan.metrics.scores import aligned
from tinysrgan.models import VGG19
from tinysrgan.ops.parallel import single_threaded_blas
from tinysrgan.train import adversarial_step
from tinysrgan.training.config import PRESETS, Options
from tinysrgan.training.split_dense import pays
from tinysrgan.training.srgan import SRGAN

RANKS = [2**i for i in range(11)]
BATCHES = (16, 256, 1024)


@dataclass(frozen=True)
class Network:
    name: str
    bandwidth: float  # bytes a second
    latency: float  # seconds


NETWORKS = (
    Network("1 Gb/s", 1e9 / 8, 50e-6),
    Network("10 Gb/s", 1e10 / 8, 20e-6),
    Network("100 Gb/s", 1e11 / 8, 3e-6),
)


@dataclass(frozen=True)
class Work:
    """What a rank does in a step: seconds whatever its images (the optimizers), seconds an image, and messages."""

    fixed: float
    per_image: float
    messages: tuple[int, ...]  # bytes of each Allreduce of gradients
    short: int  # Allreduces of batch-norm
    dense: tuple[int, int] = (0, 0)  # the shape of the weights of the layer that is split

    def seconds(self, images: float, ranks: int, network: Network) -> float:
        """A step of so many images a rank."""
        fixed, sizes, batch = self.fixed, [*self.messages], round(images * ranks)
        if ranks > 1 and pays(self.dense, batch):
            weights = 2 * 4 * prod(self.dense)  # bytes in the discriminator's two messages
            fixed *= 1 - (1 - 1 / ranks) * weights / sum(sizes)
            sizes = [sum(sizes) - weights, *(6 * [4 * batch * side for side in self.dense])]
        sent = sum(allreduce(size, ranks, network) for size in sizes)
        return fixed + self.per_image * images + sent + self.short * log2(ranks) * network.latency

    def efficiency(self, images: float, ranks: int, network: Network) -> float:
        """The speed of a rank, as a share of its speed alone."""
        return (self.fixed + self.per_image * images) / self.seconds(images, ranks, network)

    def images_for(self, efficiency: float, ranks: int, network: Network) -> float:
        """The fewest images a rank with this efficiency."""
        sent = self.seconds(1, ranks, network) - self.fixed - self.per_image
        return max(1.0, (sent * efficiency / (1 - efficiency) - self.fixed) / self.per_image)

    def best(self, batch: int, network: Network) -> int:
        """The number of ranks, up to one an image, with the shortest step of a fixed batch."""
        return min((n for n in RANKS if n <= batch), key=lambda n: self.seconds(batch / n, n, network))


def allreduce(size: float, ranks: int, network: Network) -> float:
    """Seconds for the sum of ``size`` bytes over so many ranks."""
    return 2 * log2(ranks) * network.latency + 2 * (ranks - 1) / ranks * size / network.bandwidth


def messages(srgan: SRGAN) -> tuple[tuple[int, ...], int]:
    """What an adversarial step sends: the bytes of the gradients, and how often batch-norm sends its sums."""
    g, d = srgan.generator, srgan.discriminator
    # Forward and backward: G once, D in its two updates and under G's loss.
    return (4 * size(g), 4 * size(d), 4 * size(d)), 2 * batch_norms(g) + 6 * batch_norms(d)


def size(net: Layer) -> int:
    return sum(p.value.size for p in net.parameters().values())


def first_dense(srgan: SRGAN) -> Dense:
    return next(layer for layer in srgan.discriminator.layers() if isinstance(layer, Dense))


def batch_norms(net: Layer) -> int:
    return sum(isinstance(layer, BatchNorm) for layer in net.layers())


def prepare(preset: str) -> SRGAN:
    options = Options(**PRESETS[preset])
    vgg = None if options.content_loss == "pixels" else VGG19(options.content_loss)
    return SRGAN.build(options, vgg, np)


def measure(srgan: SRGAN) -> Work:
    """Time steps of 1 and of 3 images on one thread, in processor time: other programs hardly change that."""
    rng, taken = np.random.default_rng(0), {}
    for batch in (1, 3):
        hr = rng.uniform(-1, 1, (batch, srgan.options.hr_size, srgan.options.hr_size, 3)).astype(np.float32)
        lr = hr[:, :: srgan.options.scale, :: srgan.options.scale].copy()
        runs = []
        for _ in range(3):
            begin = time.process_time()
            with single_threaded_blas():
                adversarial_step(srgan, lr, hr)
            runs.append(time.process_time() - begin)
        taken[batch] = min(runs)
    per_image = (taken[3] - taken[1]) / 2
    return Work(max(0.0, taken[1] - per_image), per_image, *messages(srgan), first_dense(srgan).w.value.shape)


def report(preset: str, srgan: SRGAN, work: Work) -> str:
    """The tables of a preset."""
    d, dense = srgan.discriminator, first_dense(srgan)
    rows = [["ranks", *(f"{n.name}, {images} a rank" for n in NETWORKS for images in (1, 8))]]
    for ranks in RANKS[1:]:
        cells = [f"{work.efficiency(images, ranks, n):.0%}" for n in NETWORKS for images in (1, 8)]
        rows.append([str(ranks), *cells])
    limits = [["network", "images a rank for 50 %", "for 90 %", *(f"batch {b}" for b in BATCHES)]]
    for n in NETWORKS:
        needed = [f"{work.images_for(share, RANKS[-1], n):.0f}" for share in (0.5, 0.9)]
        best = [(b, work.best(b, n)) for b in BATCHES]
        faster = [f"{r} ranks, x{work.seconds(b, 1, n) / work.seconds(b / r, r, n):.1f}" for b, r in best]
        limits.append([n.name, *needed, *faster])
    gradient, images = 2 * 4 * dense.w.value.size, 6 * 4 * sum(dense.w.value.shape)  # bytes of a step
    once = [f"{allreduce(work.messages[1], 1024, n):.2g} s on {n.name}" for n in NETWORKS]
    return "\n".join(
        [
            f"Preset {preset}: {work.fixed:.2f} s a step and {work.per_image:.3f} s an image on one thread; "
            f"{sum(work.messages) / 1e6:.0f} MB of gradients a step, {work.short} short messages.",
            f"The discriminator's {work.messages[1] / 1e6:.0f} MB, over 1,024 ranks: {', '.join(once)}, twice a step.",
            f"Its first dense layer holds {dense.w.value.size / size(d):.0%} of them, {gradient / 1e6:.0f} MB a step. "
            f"Split over the ranks, it takes {images / 1e6:.2f} MB an image instead: less for batches of up to "
            f"{gradient // images:,} images.",
            "Efficiency: the speed of a rank as a share of its speed alone.",
            aligned(rows),
            "At 1,024 ranks; and, for a fixed batch, the best number of ranks and how much faster than one it is.",
            aligned(limits),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="How far training scales.")
    parser.add_argument("presets", nargs="*", default=["qr", "article", "paper"], help="(qr article paper)")
    parser.add_argument("--times", type=real(1), default=1.0, help="as if a rank were so many times as fast: a GPU")
    args = parser.parse_args(arguments)
    os.environ["TINYSRGAN_THREADS"] = "1"
    for preset in args.presets:
        srgan = prepare(preset)
        work = measure(srgan)
        work = replace(work, fixed=work.fixed / args.times, per_image=work.per_image / args.times)
        print(report(preset, srgan, work), flush=True)
        print()


if __name__ == "__main__":
    main()
