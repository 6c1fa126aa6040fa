"""Finds stop strings in text that arrives in pieces.

The search is in text and not in tokens, because a stop string may start or end within a token.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Finds the first complete stop string, and holds back only text that may be the start of one.

    The result does not depend on how the text is cut into pieces. The stop string that is complete first wins; if
    several are complete at the same character, the longest of them wins.
    """

    __slots__ = ("_held", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Add text. Return the text that may be shown, and whether a stop string is complete.

        The text to show ends before the stop string.
        """
        if not self._stops:
            return text, False
        text = self._held + text
        matches = [
            (start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0
        ]
        if matches:
            self._held = ""
            return text[: min(matches)[1]], True
        safe = min(_find_start(stop, text) for stop in self._stops)
        self._held = text[safe:]
        return text[:safe], False

    def flush(self) -> str:
        """Return the text that is still held back, at the end of the output."""
        held, self._held = self._held, ""
        return held


def _find_start(stop: str, text: str) -> int:
    """Return the index from which the rest of `text` is a prefix of `stop`; the length of `text` if there is none."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return start
        start = text.find(stop[0], start + 1)
    return len(text)
