"""The model of data-parallel training: its arithmetic by hand, and what it counts against a real step."""

import mpi
import numpy as np
import pytest

from benchmarks import ranks, scaling
from benchmarks.scaling import Network, Work, allreduce
from tinysrgan.core.ranks import Ranks
from tinysrgan.train import adversarial_step
from tinysrgan.training.config import PRESETS, Options
from tinysrgan.training.data_parallel import DataParallel
from tinysrgan.training.srgan import SRGAN

NETWORK = Network("slow", bandwidth=100.0, latency=0.5)


def test_an_allreduce_by_hand():
    """400 bytes over 4 ranks: each sends 3/4 of them twice, in two latencies each way."""
    assert allreduce(400, 4, NETWORK) == 2 * 2 * 0.5 + 2 * 300 / 100
    assert allreduce(400, 1, NETWORK) == 0


def test_a_step_by_hand():
    work = Work(fixed=1.0, per_image=2.0, messages=(100, 300), short=6)
    assert work.seconds(8, 1, NETWORK) == 17 and work.efficiency(8, 1, NETWORK) == 1
    # 2 ranks: 100 and 300 bytes at 100 bytes a second, two latencies for each; a latency for each short message
    assert work.seconds(8, 2, NETWORK) == 17 + (1 + 1) + (1 + 3) + 3
    assert work.efficiency(8, 2, NETWORK) == 17 / 26
    for share in (0.5, 0.9):
        assert work.efficiency(work.images_for(share, 64, NETWORK), 64, NETWORK) == pytest.approx(share)
    assert work.best(4, Network("none", np.inf, 0)) == 4
    assert work.best(4, Network("dead", 1e-9, 1)) == 1
    assert work.best(4, NETWORK) == 1  # 9 s; on 2 ranks 5 + 9 s


def test_a_step_with_a_split_layer_by_hand():
    """A layer of 40 x 10 weights, 2 x 1,600 of 4,000 bytes: split over two ranks for a batch of up to 2 images."""
    work = Work(fixed=1.0, per_image=2.0, messages=(400, 1800, 1800), short=6, dense=(40, 10))
    network = Network("no latency", bandwidth=100.0, latency=0)
    assert work.seconds(2, 2, network) == 1 + 2 * 2 + 40  # four images: not split
    fixed = 0.2 + 0.8 / 2
    assert work.seconds(1, 2, network) == pytest.approx(fixed + 2 + (800 + 6 * 4 * 2 * 50) / 100)


class Counting(Ranks):
    """Two ranks, of which the other one's values are all zero."""

    size = 2

    def __init__(self):
        self.sizes = []

    def sum(self, x):
        self.sizes.append(x.size)


def test_the_messages_are_those_of_a_step():
    srgan = SRGAN.build(
        Options(hr_size=16, blocks=2, filters=4, discriminator_filters=2, discriminator_dense=8), None, np
    )
    srgan.share(DataParallel(ranks := Counting(), 4))
    srgan.discriminator_optimizer.steps = 1  # no reading of D(real)
    rng = np.random.default_rng(0)
    adversarial_step(srgan, *(rng.uniform(-1, 1, (2, side, side, 3)).astype(np.float32) for side in (4, 16)))
    gradients, short = scaling.messages(srgan)
    nets = [scaling.size(net) for net in (srgan.discriminator, srgan.discriminator, srgan.generator)]
    assert sorted(gradients) == sorted(4 * size for size in nets)
    assert [size for size in ranks.sizes if size in nets] == nets
    assert len(ranks.sizes) - 3 == short


def test_the_messages_of_a_split_layer():
    options = Options(hr_size=16, blocks=1, filters=4, discriminator_filters=2, discriminator_dense=512)
    srgan = SRGAN.build(options, None, np)
    srgan.share(DataParallel(ranks := Counting(), 4))
    srgan.discriminator_optimizer.steps = 1  # no reading of D(real)
    rng = np.random.default_rng(0)
    adversarial_step(srgan, *(rng.uniform(-1, 1, (2, side, side, 3)).astype(np.float32) for side in (4, 16)))
    rows, columns = scaling.first_dense(srgan).w.value.shape
    assert (rows, columns) == (16, 512)
    sides = [4 * rows, 4 * columns, 4 * columns, 4 * rows]
    rest = scaling.size(srgan.discriminator) - rows * columns
    found = [size for size in ranks.sizes if size in {*sides, rest}]
    assert found == [*sides, rest, *sides, rest, *sides]


def test_the_article_s_discriminator_has_38_million_parameters():
    srgan = SRGAN.build(Options(**PRESETS["article"] | {"content_loss": "pixels"}), None, np)
    gradients, short = scaling.messages(srgan)
    assert [round(size / 4e6, 1) for size in gradients] == [2.0, 38.2, 38.2]
    assert short == 2 * 33 + 6 * 7


def test_the_command(capsys, monkeypatch):
    monkeypatch.setenv("TINYSRGAN_THREADS", "1")
    monkeypatch.setattr(
        scaling, "prepare", lambda preset: SRGAN.build(Options(hr_size=16, blocks=1, filters=4), None, np)
    )
    scaling.main(["qr", "--times", "10"])
    printed = capsys.readouterr().out
    assert "1 Gb/s, 8 a rank" in printed and "\n1024 " in printed


SMALL_RUN = ["qr", "--batch-size", "2", "--steps", "1"]


def test_a_whole_step_is_timed_alone(capsys):
    ranks.main(SMALL_RUN)
    assert capsys.readouterr().out.startswith("qr, batch 2, one process: ")


@mpi.needs_mpi
def test_a_whole_step_is_timed_on_two_ranks():
    code, output, _ = mpi.run(2, "-m", "benchmarks.ranks", *SMALL_RUN)
    assert code == 0 and output.startswith("qr, batch 2, 2 ranks: ") and output.count("\n") == 1
