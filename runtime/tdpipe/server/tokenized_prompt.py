"""A prompt as the engine takes it, made beside the event loop."""

from __future__ import annotations

from dataclasses import dataclass

from tdpipe.prediction.text_numbers import TextNumbers


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPrompt:
    """What is left of a prompt's text."""

    tokens: tuple[int, ...]
    text: TextNumbers | None = None
    """What may tell the length of the answer; None where the client sent token ids."""
