"""What every test relies on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A shell script's background job ignores SIGINT, and so would every program that the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
