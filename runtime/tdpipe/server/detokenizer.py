"""Decodes tokens that arrive one at a time.

`tokenizers.decoders.DecodeStream` does this too. But once a model emits bytes that are not UTF-8, it raises "Invalid
prefix" for good; it also holds such bytes back without limit and has no way to flush them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"
_MAX_PENDING = 3  # A UTF-8 character has at most 4 bytes, and the last one completes it.
_MAX_WINDOW_TOKENS = 64
_CONTEXT_LENGTHS = (4, 16, 64)


class Decoder(Protocol):
    """The part of a tokenizer that decodes."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Special tokens, which have no text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode a whole token sequence, without special tokens."""


class Detokenizer:
    """Decodes one sequence incrementally, in constant time per token.

    The text that a token adds depends on its neighbours (leading spaces, characters split into bytes). A short
    window of tokens is therefore decoded together with it, and text that was already emitted is left out. The window
    moves on whenever its text ends in a complete character.

    Args:
        decoder: the tokenizer.
        context: tokens that the text continues, such as a completion's prompt. They are not emitted, but decide
            whether the first token keeps its leading space.
    """

    __slots__ = ("_context_size", "_decode", "_emitted", "_special", "_window")

    def __init__(self, decoder: Decoder, context: Sequence[int] = ()) -> None:
        self._decode = decoder.decode
        self._special = decoder.special_ids
        self._window: list[int] = []
        self._context_size = 0
        """Number of tokens at the window's start that are only context."""
        self._emitted = ""
        """Part of the window's text that was already emitted."""
        self._set_context(context)

    def step(self, token: int) -> str:
        """Add a token, and return the new text that can no longer change. It never ends within a character."""
        if token in self._special:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        whole = _strip_pending(text)
        new = ""
        if len(whole) == len(text):
            new = text[len(self._emitted) :]
            self._emitted = text
            if new:
                del self._window[: self._context_size]
                self._context_size = len(self._window)
                self._emitted = self._decode(self._window)
        elif whole.startswith(self._emitted):
            new = whole[len(self._emitted) :]
            self._emitted = whole
        if len(self._window) > _MAX_WINDOW_TOKENS:
            self._trim_window(len(text) - len(self._emitted))
        return new

    def finish(self) -> str:
        """Return the text that is still held back, with U+FFFD for a character that was never completed."""
        text = self._decode(self._window)
        new = text[len(self._emitted) :]
        self._emitted = text
        return new

    def _set_context(self, context: Sequence[int]) -> None:
        for length in _CONTEXT_LENGTHS:
            window = [token for token in context[-length:] if token not in self._special]
            text = self._decode(window)
            # A window that starts within a character would decode the rest of the context wrongly.
            if text and _REPLACEMENT not in text:
                self._window, self._context_size, self._emitted = window, len(window), text
                return

    def _trim_window(self, pending: int) -> None:
        if self._context_size == len(self._window):
            return
        self._window = self._window[-_MAX_WINDOW_TOKENS // 2 :]
        self._context_size = 0
        text = self._decode(self._window)
        self._emitted = text[: max(0, len(text) - max(0, pending))]


def _strip_pending(text: str) -> str:
    """Remove replacement characters from the end that further bytes may still complete."""
    if not text.endswith(_REPLACEMENT):
        return text
    end = len(text)
    while end > 0 and len(text) - end < _MAX_PENDING and text[end - 1] == _REPLACEMENT:
        end -= 1
    return text[:end]
