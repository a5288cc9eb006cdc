"""The moving average of a net's weights compared with its formula."""

import numpy as np

from tinysrgan.models import Generator
from tinysrgan.training.average import MovingAverage


def test_the_average_follows_its_formula():
    """Parameters and running statistics are averaged; in the first steps the decay is smaller."""
    rng = np.random.default_rng(0)
    net = Generator(1, 2).astype(np.float64)
    steps = [{name: rng.normal(size=t.value.shape) for name, t in net.tensors().items()} for _ in range(60)]
    for decay in (0.5, 0.8, 0.999):
        average = MovingAverage(net, decay)
        expected = {name: np.full_like(value, 1e9) for name, value in steps[0].items()}  # the first update drops these
        for t, values in enumerate(steps, start=1):
            for name, tensor in net.tensors().items():
                tensor.value[...] = values[name]
            average.update(t)
            d = min(decay, (t - 1) / (t + 9))
            expected = {name: d * expected[name] + (1 - d) * values[name] for name in values}
            if t == 1:
                assert d == 0
        for name, tensor in average.net.tensors().items():
            np.testing.assert_allclose(tensor.value, expected[name], rtol=1e-12, err_msg=name)
            assert not np.shares_memory(tensor.value, net.tensors()[name].value)


def test_a_net_that_stands_still_is_its_own_average():
    net = Generator(1, 2)
    average = MovingAverage(net, 0.9)
    for t in range(1, 30):
        average.update(t)
    for name, tensor in net.tensors().items():
        assert (average.net.tensors()[name].value == tensor.value).all(), name
