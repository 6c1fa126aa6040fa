"""Text from tokens that arrive one at a time.

`tokenizers.decoders.DecodeStream` does this too, but raises "Invalid prefix" and stays broken once
a model emits bytes that are no UTF-8, holds such bytes back without bound, and cannot be asked for
what it still holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"
_LONGEST_PENDING = 3  # a UTF-8 character has at most 4 bytes, of which the last completes it
_LONGEST_WINDOW = 64
_CONTEXT_LENGTHS = (4, 16, 64)


class Decoder(Protocol):
    """What detokenizing needs of a tokenizer."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that have no text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a whole token sequence, without special tokens."""


class Detokenizer:
    """Incremental decoding of one sequence in constant time per token.

    What a token adds to the text depends on its neighbours (leading spaces, characters cut into
    bytes), so a short window of tokens is decoded with it and what was emitted already is left out.
    The window moves on whenever its text ends in a whole character.

    Args:
        decoder: the tokenizer.
        context: tokens that the text continues, such as a completion's prompt; they decide whether
            the first token keeps its leading space and are not emitted.
    """

    __slots__ = ("_decode", "_emitted", "_settled", "_special", "_window")

    def __init__(self, decoder: Decoder, context: Sequence[int] = ()) -> None:
        self._decode = decoder.decode
        self._special = decoder.special_ids
        self._window: list[int] = []
        self._settled = 0
        """Leading tokens of the window that are there only as context."""
        self._emitted = ""
        """The part of the window's text that was emitted."""
        self._take_context(context)

    def step(self, token: int) -> str:
        """The text that is certain now that `token` has come; never part of a character."""
        if token in self._special:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        whole = _without_pending(text)
        new = ""
        if len(whole) == len(text):
            new = text[len(self._emitted) :]
            self._emitted = text
            if new:
                del self._window[: self._settled]
                self._settled = len(self._window)
                self._emitted = self._decode(self._window)
        elif whole.startswith(self._emitted):
            new = whole[len(self._emitted) :]
            self._emitted = whole
        if len(self._window) > _LONGEST_WINDOW:
            self._shorten(len(text) - len(self._emitted))
        return new

    def finish(self) -> str:
        """What was held back: U+FFFD stands for a character that was never completed."""
        text = self._decode(self._window)
        new = text[len(self._emitted) :]
        self._emitted = text
        return new

    def _take_context(self, context: Sequence[int]) -> None:
        for length in _CONTEXT_LENGTHS:
            window = [token for token in context[-length:] if token not in self._special]
            text = self._decode(window)
            # A cut through the bytes of a character would make the rest of the context look like
            # something else.
            if text and _REPLACEMENT not in text:
                self._window, self._settled, self._emitted = window, len(window), text
                return

    def _shorten(self, pending: int) -> None:
        if self._settled == len(self._window):
            return
        self._window = self._window[-_LONGEST_WINDOW // 2 :]
        self._settled = 0
        text = self._decode(self._window)
        self._emitted = text[: max(0, len(text) - max(0, pending))]


def _without_pending(text: str) -> str:
    """`text` without the replacement characters at its end that may yet become a character."""
    if not text.endswith(_REPLACEMENT):
        return text
    end = len(text)
    while end > 0 and len(text) - end < _LONGEST_PENDING and text[end - 1] == _REPLACEMENT:
        end -= 1
    return text[:end]
