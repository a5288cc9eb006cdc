"""Prefetching keeps the order, limits how far it reads ahead, and ends its threads with the iteration."""

import threading

import pytest

from tinysrgan.data.images import DataError
from tinysrgan.data.prefetch import prefetch


def prefetch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_prefetch_keeps_the_order_whatever_is_ready_first():
    second_done = threading.Event()

    def make(step: int) -> int:
        if step == 0:
            assert second_done.wait(20)
        if step == 1:
            second_done.set()
        return step * step

    assert list(prefetch(make, range(50), workers=2)) == [step * step for step in range(50)]
    assert not prefetch_threads()


def test_prefetch_works_ahead_but_not_far():
    made = []
    fifth = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 4:
            fifth.set()
        return step

    steps = prefetch(make, range(1000), ahead=4)
    assert next(steps) == 0
    assert fifth.wait(20)  # before the caller requests it
    steps.close()
    assert max(made) == 4
    assert not prefetch_threads()


def test_an_exception_comes_in_its_turn_and_ends_the_threads():
    def make(step: int) -> int:
        if step == 3:
            raise DataError("step 3")
        return step

    seen = []
    with pytest.raises(DataError, match="step 3"):
        for step in prefetch(make, range(100), workers=3):
            seen.append(step)
    assert seen == [0, 1, 2]
    assert not prefetch_threads()


@pytest.mark.parametrize("stop", [StopIteration, KeyboardInterrupt])
def test_stopping_half_way_leaves_no_threads(stop):
    with pytest.raises(stop):
        for step in prefetch(lambda step: step, range(10**9), workers=3):
            if step == 5:
                assert prefetch_threads()
                raise stop
    assert not prefetch_threads()


def test_prefetch_of_nothing():
    assert list(prefetch(lambda step: step, range(0))) == []
    assert list(prefetch(lambda step: step, range(2), ahead=0)) == [0, 1]
