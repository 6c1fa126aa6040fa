"""One part of the check, run so that its failure or its delay leaves the other parts alone.

Time on a GPU is lent by the minute, so a part that fails is recorded with its reason and the next one begins.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a part."""

    text: str
    """One line for the table."""
    figures: dict[str, object] = field(default_factory=dict)
    """Figures of the part, which can be written as JSON."""


class PartSkippedError(Exception):
    """A part cannot run, because an earlier part that it builds on did not succeed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A function that is run with a time limit."""

    name: str
    seconds: float
    """Time limit."""
    run: Callable[[float], Finding]
    """Called with the time at which the part must have ended, in seconds of `time.monotonic`."""
    needs_model: bool = False
    """Whether the part is about the large model, which other parts write and load."""


class Status(StrEnum):
    """How a part ended."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a part that ran, failed or was skipped."""

    name: str
    status: Status
    text: str
    """The finding, or why there is none."""
    seconds: float = 0.0
    """Time that the part took."""
    figures: dict[str, object] = field(default_factory=dict)
    traceback: str = ""


def run_part(part: Part, end: float) -> Outcome:
    """Run a part in a thread of its own and wait until it ends or its time is up.

    A thread cannot be stopped: a part that takes too long goes on in the background.

    Args:
        part: the work.
        end: time at which all parts must have ended, in seconds of `time.monotonic`.
    """
    began = time.monotonic()
    if began >= end:
        return Outcome(part.name, Status.SKIPPED, "the time for all parts was used up before it")
    limit = min(part.seconds, end - began)
    answers: queue.SimpleQueue[Finding | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(part.run(began + limit))
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=work, name=part.name, daemon=True).start()
    try:
        answer = answers.get(timeout=limit)
    except queue.Empty:
        text = f"took longer than {limit:.0f} s and may disturb the parts after it"
        return Outcome(part.name, Status.FAILED, text, limit)
    seconds = time.monotonic() - began
    if isinstance(answer, Finding):
        return Outcome(part.name, Status.OK, answer.text, seconds, answer.figures)
    if isinstance(answer, PartSkippedError):
        return Outcome(part.name, Status.SKIPPED, str(answer), seconds)
    trace = "".join(traceback.format_exception(answer))
    return Outcome(part.name, Status.FAILED, reason_of(answer), seconds, traceback=trace)


def reason_of(error: BaseException) -> str:
    """First line of an exception's message, or its type where the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
