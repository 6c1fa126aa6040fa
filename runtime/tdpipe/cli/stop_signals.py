"""Ctrl-C and SIGTERM: the first one interrupts the main thread, the next one ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORCED_EXIT = 130


@contextmanager
def own_signals() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt on the main thread; put back what was there in the end."""
    before = [signal.getsignal(number) for number in _SIGNALS]
    interrupt_on_signals()
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def interrupt_on_signals() -> None:
    """From now on a signal raises KeyboardInterrupt, also where a library put its own handler."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def exit_on_signals() -> None:
    """From now on a signal ends the process at once, without any cleaning up."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        os._exit(_FORCED_EXIT)

    for number in _SIGNALS:
        signal.signal(number, leave)
