"""Handles Ctrl-C and SIGTERM: the first signal interrupts the main thread, the next one ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORCED_EXIT_STATUS = 130


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt on the main thread, and restore the previous handlers in the end."""
    before = [signal.getsignal(number) for number in _SIGNALS]
    interrupt_on_signals()
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def interrupt_on_signals() -> None:
    """Let signals raise KeyboardInterrupt, even if a library has installed its own handler since."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def exit_on_signals() -> None:
    """Let signals end the process at once, without any clean-up."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        os._exit(_FORCED_EXIT_STATUS)

    for number in _SIGNALS:
        signal.signal(number, leave)
