"""Stop strings in text that arrives in pieces.

They are looked for in text, not in tokens, because a stop string's border need not be a token's.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Finds the first stop string to be completed, and holds back only what may begin one.

    The result does not depend on how the text is cut into pieces: of several stop strings the one
    that is complete first wins, of those complete at the same character the longest.
    """

    __slots__ = ("_held", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """(text that may be shown, which ends before a stop string; whether one is complete)."""
        if not self._stops:
            return text, False
        text = self._held + text
        matches = [
            (start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0
        ]
        if matches:
            self._held = ""
            return text[: min(matches)[1]], True
        safe = min(_beginning(stop, text) for stop in self._stops)
        self._held = text[safe:]
        return text[:safe], False

    def flush(self) -> str:
        """What is still held back, at the end of the output."""
        held, self._held = self._held, ""
        return held


def _beginning(stop: str, text: str) -> int:
    """Where the longest end of `text` that is a beginning of `stop` starts, else its length."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return start
        start = text.find(stop[0], start + 1)
    return len(text)
