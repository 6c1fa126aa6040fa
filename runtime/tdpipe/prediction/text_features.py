"""Features of a prompt's text that indicate how long the answer will be.

They are extracted once, outside of the event loop. A prediction can then be repeated within microseconds, and the
engine does not have to keep the text. Words and letters are counted by hash, which needs no vocabulary.
"""

from __future__ import annotations

import math
import re
import zlib

import numpy as np

TextFeatures = np.ndarray[tuple[int], np.dtype[np.float32]]
"""[len(TEXT_FEATURE_NAMES)] features of one text; NaN if the text is not known."""
ByteArray = np.ndarray[tuple[int], np.dtype[np.uint8]]

_HEAD_CHARACTERS, _TAIL_CHARACTERS = 400, 1600
"""Characters at the start and at the end of a long text that are read; those between them are skipped."""
_HASHED_CHARACTERS = 200
"""Characters at the start and at the end whose words are hashed."""
_HASHED_BYTES = 160
"""Bytes at the end whose trigrams are hashed."""
_MAX_LINE_CHARACTERS = 400
"""Characters at the end of the last line that are read."""
_BUCKETS = 48
_MAX_NUMBER = 10**6
_NO_NUMBER = -1.0
_LAST_LINE_FEATURES = 11
"""Number of entries at the end of `_LAYOUT_FEATURE_NAMES` that describe the last line."""

_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")
_LAYOUT_FEATURE_NAMES = (
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
TEXT_FEATURE_NAMES = (
    *_LAYOUT_FEATURE_NAMES,
    *(f"first_words_{bucket}" for bucket in range(_BUCKETS)),
    *(f"last_words_{bucket}" for bucket in range(_BUCKETS)),
    *(f"last_letters_{bucket}" for bucket in range(_BUCKETS)),
)
"""Names of the entries of `TextFeatures`."""


def extract_text_features(text: str) -> TextFeatures:
    """Extract the features of a prompt. The middle of a long text is not read.

    Args:
        text: Prompt as the user wrote it. For a chat, all messages in order, each starting on a new line.
    """
    read = text
    if len(text) > _HEAD_CHARACTERS + _TAIL_CHARACTERS:
        read = f"{text[:_HEAD_CHARACTERS]}\n{text[-_TAIL_CHARACTERS:]}"
    raw = np.frombuffer(read.encode(errors="replace"), dtype=np.uint8)
    layout = [math.log1p(len(text)), *_layout(read, raw), *_last_line(read)]
    return np.concatenate(
        [
            np.array(layout, dtype=np.float32),
            _hashed_words(read[:_HASHED_CHARACTERS]),
            _hashed_words(read[-_HASHED_CHARACTERS:]),
            _hashed_trigrams(raw[-_HASHED_BYTES:]),
        ]
    )


def unknown_text_features() -> TextFeatures:
    """Return the features of a prompt whose text is not known."""
    return np.full(len(TEXT_FEATURE_NAMES), np.nan, dtype=np.float32)


def _layout(text: str, raw: ByteArray) -> list[float]:
    byte_counts = np.bincount(raw, minlength=256).tolist()
    counts = (
        byte_counts[ord("\n")],
        len(text.split()),
        sum(byte_counts[ord("0") : ord("9") + 1]),
        sum(byte_counts[ord("A") : ord("Z") + 1]),
        byte_counts[ord(",")],
        byte_counts[ord("?")],
        byte_counts[ord(":")],
        sum(byte_counts[ord(mark)] for mark in "()[]{}"),
        byte_counts[ord("`")],
        sum(byte_counts[128:]),
    )
    end = text.rstrip()[-1:]
    return [*(math.log1p(each) for each in counts), end == "?", end in (".", "!"), end == ":"]


def _last_line(text: str) -> list[float]:
    line = text.rstrip().rpartition("\n")[2][-_MAX_LINE_CHARACTERS:]
    words = _WORD.findall(line) or [""]
    numbers = [min(int(digits), _MAX_NUMBER) for digits in _NUMBER.findall(line)]
    values = [
        len(line),
        len(words),
        len(numbers),
        max(map(len, words)),
        len(words[0]),
        len(words[-1]),
    ]
    if numbers:
        values += [numbers[0], numbers[-2] if len(numbers) > 1 else numbers[0], numbers[-1]]
        values += [max(numbers), abs(values[-1] - values[-2])]
    logarithms = [math.log1p(each) for each in values]
    return logarithms + [_NO_NUMBER] * (_LAST_LINE_FEATURES - len(logarithms))


def _hashed_words(text: str) -> TextFeatures:
    words = _WORD.findall(text.lower())
    buckets = [zlib.crc32(word.encode(errors="replace")) % _BUCKETS for word in words]
    counts = np.bincount(np.array(buckets, dtype=np.int64), minlength=_BUCKETS)
    return counts.astype(np.float32)


def _hashed_trigrams(raw: ByteArray) -> TextFeatures:
    letters = raw.astype(np.uint32)
    mixed = letters[:-2] * 65_599 ^ letters[1:-1] * 40_503 ^ letters[2:] * 2_654_435_761
    buckets = (mixed * np.uint32(2_654_435_769) >> np.uint32(20)) % _BUCKETS
    return np.bincount(buckets, minlength=_BUCKETS).astype(np.float32)
