"""Wordings of each task.

The same table of frames is used to write prompts and to read them back, so every prompt that the model
is trained on can be checked, and nothing else is accepted as a question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

_SLOTS: Mapping[str, str] = {
    "start": r"(?P<start>\d+)",
    "end": r"(?P<end>\d+)",
    "times": r"(?P<times>\d+)",
    "word": r"(?P<quote>[\"']?)(?P<word>\w+)(?P=quote)",
    "numbers": r"(?P<numbers>\d+(?:,? \d+)+)",
    "items": r"(?P<items>\w+(?:,? \w+)+)",
}

# The order matters: frames are matched from the first to the last, and the first is drawn twice as often.
FRAMES: Mapping[str, tuple[str, ...]] = {
    "count": (
        "Count from {start} to {end}",
        "Count {start} to {end}",
        "List the numbers from {start} to {end}",
    ),
    "repeat": (
        "Repeat the word {word} {times} times",
        "Repeat {word} {times} times",
        "Say {word} {times} times",
        "Write the word {word} {times} times",
    ),
    "reverse": (
        "Reverse the word {word}",
        "Reverse the list {items}",
        "Reverse {word}",
        "Write the word {word} backwards",
    ),
    "sort": (
        "Sort the numbers {numbers}",
        "Sort {numbers}",
        "Sort these numbers: {numbers}",
        "Put the numbers {numbers} in order",
    ),
    "spell": (
        "Spell the word {word}",
        "Spell {word}",
        "How do you spell {word}",
    ),
}

_POLITE_OPENINGS = ("Please ", "Can you ", "Could you please ")
_POLITE_ENDINGS = (" please", ", please")
_END_MARKS = (".", "!", "?")

_OPENING = re.compile(r"^(?:(?:can|could|would) you )?(?:please )?", re.IGNORECASE)
_ENDING = re.compile(r"(?:,? please)?\s*[.!?]*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """A task with the values of its frame's slots, independent of the wording."""

    task: str
    slots: Mapping[str, str]


def _pattern(frame: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", frame)
    literal = [re.escape(part) for part in parts[::2]]
    slots = [_SLOTS[name] for name in parts[1::2]]
    body = "".join(text for pair in zip(literal, [*slots, ""], strict=True) for text in pair)
    return re.compile(body, re.IGNORECASE)


_PATTERNS = [(task, _pattern(frame)) for task, frames in FRAMES.items() for frame in frames]


def draw_prompt(rng: Random, question: Question) -> str:
    """Write a question in one of its frames, with random case, quotes, separators and polite words."""
    slots = dict(question.slots)
    frames = [
        frame
        for frame in FRAMES[question.task]
        if set(re.findall(r"\{(\w+)\}", frame)) == slots.keys()
    ]
    separator = rng.choice([" ", ", "])
    for name in ("numbers", "items"):
        if name in slots:
            slots[name] = slots[name].replace(" ", separator)
    if "word" in slots and rng.random() < 0.1:
        quote = rng.choice("\"'")
        slots["word"] = f"{quote}{slots['word']}{quote}"
    weights = [2.0, *([1.0] * (len(frames) - 1))]
    text = rng.choices(frames, weights)[0].format(**slots)
    kind = rng.random()
    asked = text.startswith("How")
    if not asked and kind < 0.15:
        opening = rng.choice(_POLITE_OPENINGS)
        asked = opening.startswith("C")
        text = opening + text[0].lower() + text[1:]
    elif not asked and kind < 0.2:
        text += rng.choice(_POLITE_ENDINGS)
    if rng.random() < 0.25:
        text = text[0].lower() + text[1:]
    ending = "?" if asked else rng.choices(_END_MARKS[:2], [9, 1])[0]
    return text + ending if rng.random() < 0.75 else text


def has_end_mark(prompt: str) -> bool:
    """Whether a prompt ends with a mark that shows that it is complete."""
    return prompt.endswith(_END_MARKS)


def read_prompt(prompt: str) -> Question | None:
    """Parse a prompt into its question; None if it matches no task."""
    text = _ENDING.sub("", _OPENING.sub("", prompt.strip()))
    for task, pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            found = {name: value for name, value in match.groupdict().items() if name != "quote"}
            for name in ("numbers", "items"):
                if name in found:
                    found[name] = found[name].replace(",", "")
            return Question(task, found)
    return None
