"""A prompt's text as a few numbers that say something about its answer's length.

Made once, beside the event loop, so that a prediction costs microseconds however often it is made anew, and so that
nothing in the engine keeps the text. Words and letters are hashed into counts, which needs no vocabulary.
"""

from __future__ import annotations

import math
import re
import zlib

import numpy as np

TextNumbers = np.ndarray[tuple[int], np.dtype[np.float32]]
"""[len(TEXT_INPUTS)]"""
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]

_HEAD, _TAIL = 400, 1600
"""Characters of a long text that are read."""
_END = 200
"""Characters at either end whose words are hashed."""
_LAST_BYTES = 160
"""Whose triples are hashed."""
_LAST_LINE = 400
"""Characters of the last line that are read."""
_BUCKETS = 48
_LARGEST_NUMBER = 10**6
_ABSENT = -1.0
_OF_LAST_LINE = 11
"""Entries of `_SHAPE` that are about it, the last ones."""

_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")
_SHAPE = (
    "characters",
    "lines",
    "words",
    "digits",
    "capitals",
    "commas",
    "questions",
    "colons",
    "brackets",
    "backquotes",
    "other_scripts",
    "ends_as_question",
    "ends_as_sentence",
    "ends_as_list",
    "last_line_characters",
    "last_line_words",
    "last_line_numbers",
    "longest_word",
    "first_word",
    "last_word",
    "first_number",
    "last_but_one_number",
    "last_number",
    "largest_number",
    "last_numbers_apart",
)
TEXT_INPUTS = (
    *_SHAPE,
    *(f"first_words_{bucket}" for bucket in range(_BUCKETS)),
    *(f"last_words_{bucket}" for bucket in range(_BUCKETS)),
    *(f"last_letters_{bucket}" for bucket in range(_BUCKETS)),
)
"""What each number is."""


def describe_text(text: str) -> TextNumbers:
    """The numbers of a prompt; of a long one the middle is not read.

    Args:
        text: what the user wrote. Of a chat all messages, the last one at the end and beginning on a line of its own.
    """
    read = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    raw = np.frombuffer(read.encode(errors="replace"), dtype=np.uint8)
    shape = [math.log1p(len(text)), *_shape(read, raw), *_last_line(read)]
    return np.concatenate(
        [
            np.array(shape, dtype=np.float32),
            _hashed_words(read[:_END]),
            _hashed_words(read[-_END:]),
            _hashed_triples(raw[-_LAST_BYTES:]),
        ]
    )


def no_text() -> TextNumbers:
    """Of a prompt whose text is not known."""
    return np.full(len(TEXT_INPUTS), np.nan, dtype=np.float32)


def _shape(text: str, raw: Bytes) -> list[float]:
    counts = np.bincount(raw, minlength=256).tolist()
    amounts = (
        counts[ord("\n")],
        len(text.split()),
        sum(counts[ord("0") : ord("9") + 1]),
        sum(counts[ord("A") : ord("Z") + 1]),
        counts[ord(",")],
        counts[ord("?")],
        counts[ord(":")],
        sum(counts[ord(mark)] for mark in "()[]{}"),
        counts[ord("`")],
        sum(counts[128:]),
    )
    end = text.rstrip()[-1:]
    return [*(math.log1p(each) for each in amounts), end == "?", end in (".", "!"), end == ":"]


def _last_line(text: str) -> list[float]:
    line = text.rstrip().rpartition("\n")[2][-_LAST_LINE:]
    words = _WORD.findall(line) or [""]
    numbers = [min(int(digits), _LARGEST_NUMBER) for digits in _NUMBER.findall(line)]
    amounts = [
        len(line),
        len(words),
        len(numbers),
        max(map(len, words)),
        len(words[0]),
        len(words[-1]),
    ]
    if numbers:
        amounts += [numbers[0], numbers[-2] if len(numbers) > 1 else numbers[0], numbers[-1]]
        amounts += [max(numbers), abs(amounts[-1] - amounts[-2])]
    told = [math.log1p(each) for each in amounts]
    return told + [_ABSENT] * (_OF_LAST_LINE - len(told))


def _hashed_words(text: str) -> TextNumbers:
    words = _WORD.findall(text.lower())
    buckets = [zlib.crc32(word.encode(errors="replace")) % _BUCKETS for word in words]
    counts = np.bincount(np.array(buckets, dtype=np.int64), minlength=_BUCKETS)
    return counts.astype(np.float32)


def _hashed_triples(raw: Bytes) -> TextNumbers:
    letters = raw.astype(np.uint32)
    mixed = letters[:-2] * 65_599 ^ letters[1:-1] * 40_503 ^ letters[2:] * 2_654_435_761
    buckets = (mixed * np.uint32(2_654_435_769) >> np.uint32(20)) % _BUCKETS
    return np.bincount(buckets, minlength=_BUCKETS).astype(np.float32)
