"""The first signal sets a flag, the second reaches the previous handler, and the handlers are restored."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tinysrgan.training.interrupt import stop_on_signal

ROOT = Path(__file__).parents[2]
NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers():
    """Install handlers that record signals, so that a fault does not end pytest."""
    seen: list[int] = []
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in NUMBERS}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_only_sets_the_wish_and_the_second_goes_through(number, handlers):
    ours = [signal.getsignal(n) for n in NUMBERS]
    with stop_on_signal() as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped() and handlers == []
        signal.raise_signal(number)
        assert stopped() and handlers == [number]
    assert [signal.getsignal(n) for n in NUMBERS] == ours


def test_a_second_signal_of_the_other_kind_goes_through(handlers):
    with stop_on_signal() as stopped:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stopped() and handlers == [signal.SIGTERM]


def test_the_second_ctrl_c_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), stop_on_signal():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_handlers_come_back_however_it_ends(error):
    ours = [signal.getsignal(number) for number in NUMBERS]
    try:
        with stop_on_signal():
            assert signal.getsignal(signal.SIGINT) is not ours[0]
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert [signal.getsignal(number) for number in NUMBERS] == ours


def test_a_new_use_knows_nothing_of_the_last():
    with stop_on_signal() as stopped:
        signal.raise_signal(signal.SIGINT)
    with stop_on_signal() as stopped:
        assert not stopped()


def test_another_thread_may_train_too():
    """Outside the main thread, Python cannot set handlers, and ``stop_on_signal`` leaves them unchanged."""
    ours = [signal.getsignal(number) for number in NUMBERS]
    results = []

    def use() -> None:
        with stop_on_signal() as stopped:
            results.append((stopped(), [signal.getsignal(number) for number in NUMBERS]))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert results == [(False, ours)]
    assert [signal.getsignal(number) for number in NUMBERS] == ours


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_a_process_survives_the_first_sigterm_and_not_the_second():
    program = (
        "import os, signal\nfrom tinysrgan.training.interrupt import stop_on_signal\n"
        "with stop_on_signal() as stopped:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('first', stopped(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('second', flush=True)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("first True\n", -signal.SIGTERM)
