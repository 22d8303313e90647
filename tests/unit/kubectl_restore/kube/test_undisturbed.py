from __future__ import annotations

import os
import signal
import threading

import pytest

from kubectl_restore.kube.undisturbed import undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_inside_changes_nothing(number: signal.Signals) -> None:
    reached = []
    before = signal.signal(number, lambda *_: reached.append("handled"))
    try:
        with undisturbed():
            os.kill(os.getpid(), number)
        assert reached == []
        os.kill(os.getpid(), number)
        assert reached == ["handled"]
    finally:
        signal.signal(number, before)


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="inside"), undisturbed():
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_go_on_without_it() -> None:
    done = threading.Event()

    def run() -> None:
        with undisturbed():
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done.is_set()
