"""Signals that wait for a safe place."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.signals import put_off_signals


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_waits_until_it_is_let_through() -> None:
    with pytest.raises(KeyboardInterrupt), put_off_signals() as let_through:
        let_through()
        interrupt()
        passed = True
        let_through()
        pytest.fail("it was not let through")
    assert passed


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), put_off_signals():
        interrupt()
        interrupt()
        pytest.fail("it waited")


def test_what_is_left_over_is_let_through_at_the_end_and_the_handlers_are_as_before() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), put_off_signals():
        interrupt()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_handler_of_sigterm_is_put_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    earlier = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with put_off_signals() as let_through:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not heard
            let_through()
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, earlier)


def test_other_threads_hear_no_signals_and_change_no_handler() -> None:
    def work() -> object:
        with put_off_signals() as let_through:
            let_through()
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(work).result() is signal.getsignal(signal.SIGINT)
