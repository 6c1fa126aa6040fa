"""The demo model's tasks: questions whose answers a program can check.

A prompt determines its answer and the answer's length, so a test of the engine can recognise a wrong
token. A hash of the question's content separates training from held-out questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING

from examples.demo_model.phrasing import Question, draw_prompt, read_prompt
from examples.demo_model.words import COMMON_WORDS, draw_word, is_held_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_NUMBER = 999
MAX_COUNT_NUMBERS = 60
MAX_REPEATS = 12
MAX_SORTED_NUMBERS = 8
HELP = "I can count, repeat, reverse, sort and spell."


class Split(StrEnum):
    """The set that a question belongs to."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with its only right answer."""

    task: str
    prompt: str
    answer: str


def _draw_number(rng: Random) -> int:
    return rng.randint(0, rng.choice([9, 99, MAX_NUMBER, MAX_NUMBER]))


def _draw_count(rng: Random) -> Question:
    start = _draw_number(rng)
    steps = rng.randint(1, rng.choice([12, MAX_COUNT_NUMBERS - 1]))
    end = start - steps if rng.random() < 0.2 else start + steps
    end = min(max(end, 0), MAX_NUMBER)
    return Question("count", {"start": str(start), "end": str(end)})


def _draw_repeat(rng: Random) -> Question:
    times = rng.randint(2, MAX_REPEATS)
    return Question("repeat", {"word": draw_word(rng), "times": str(times)})


def _draw_reverse(rng: Random) -> Question:
    if rng.random() < 0.65:
        return Question("reverse", {"word": draw_word(rng)})
    length = rng.randint(2, 6)
    if rng.random() < 0.5:
        items = [str(_draw_number(rng)) for _ in range(length)]
    else:
        items = [draw_word(rng, max_letters=7) for _ in range(length)]
    return Question("reverse", {"items": " ".join(items)})


def _draw_sort(rng: Random) -> Question:
    largest = rng.choice([20, 99, MAX_NUMBER, MAX_NUMBER])
    numbers = [str(rng.randint(0, largest)) for _ in range(rng.randint(2, MAX_SORTED_NUMBERS))]
    return Question("sort", {"numbers": " ".join(numbers)})


def _draw_spell(rng: Random) -> Question:
    return Question("spell", {"word": draw_word(rng)})


_DRAW_QUESTION: Mapping[str, Callable[[Random], Question]] = {
    "count": _draw_count,
    "repeat": _draw_repeat,
    "reverse": _draw_reverse,
    "sort": _draw_sort,
    "spell": _draw_spell,
}
TASKS: tuple[str, ...] = tuple(_DRAW_QUESTION)


def _answer(question: Question) -> str:
    slots = question.slots
    if question.task == "count":
        start, end = int(slots["start"]), int(slots["end"])
        step = 1 if end >= start else -1
        return " ".join(str(number) for number in range(start, end + step, step))
    if question.task == "repeat":
        return " ".join([slots["word"]] * int(slots["times"]))
    if question.task == "reverse" and "items" in slots:
        return " ".join(reversed(slots["items"].split()))
    if question.task == "reverse":
        return slots["word"][::-1]
    if question.task == "sort":
        return " ".join(sorted(slots["numbers"].split(), key=int))
    return "-".join(slots["word"])


def _split(question: Question) -> Split:
    # A word is held out of all tasks at once. Numbers are held out by their answer, whatever their order in the prompt.
    words = [word for text in question.slots.values() for word in text.split() if word.isalpha()]
    keys = words or [_answer(question)]
    return Split.HELD_OUT if any(is_held_out(key) for key in keys) else Split.TRAIN


def examples(task: str, split: Split, seed: int) -> Iterator[Example]:
    """Draw an endless stream of examples of one task from one split, determined by the seed.

    Raises:
        ValueError: `task` is not one of `TASKS`.
    """
    if task not in _DRAW_QUESTION:
        raise ValueError(f"task: {task!r} is unknown; choose one of {', '.join(TASKS)}")
    rng = Random(f"{seed}:{task}:{split}")  # a string seed has the same effect in every process
    while True:
        question = _DRAW_QUESTION[task](rng)
        if _split(question) is split:
            yield Example(task, draw_prompt(rng, question), _answer(question))


def small_talk(seed: int) -> Iterator[Example]:
    """Draw an endless stream of prompts outside of the tasks, all answered with `HELP`."""
    rng = Random(f"{seed}:small talk")
    openings = ("Hello", "Hi", "Hi there", "Good morning", "What can you do", "Who are you", "Help")
    starts = ("What is", "Why does", "Tell me about", "How many", "Where is", "Explain", "Write")
    while True:
        kind = rng.random()
        if kind < 0.2:
            prompt = rng.choice(openings)
        elif kind < 0.8:
            words = [rng.choice(COMMON_WORDS) for _ in range(rng.randint(1, 8))]
            prompt = " ".join([rng.choice(starts), *words])
        else:
            ranges = rng.choice(
                [(0x4E00, 0x9FFF), (0x1F300, 0x1F64F), (0xC0, 0x24F), (0x400, 0x4FF)]
            )
            prompt = "".join(chr(rng.randint(*ranges)) for _ in range(rng.randint(1, 12)))
        yield Example("small talk", prompt + rng.choice([".", "?", "!", ""]), HELP)


def expected_answer(prompt: str) -> str:
    """Return the only right answer to a prompt in one of the wordings of `phrasing.FRAMES`.

    Raises:
        ValueError: The prompt matches no task.
    """
    question = read_prompt(prompt)
    if question is None:
        raise ValueError(f"prompt: {prompt!r} matches none of the tasks {', '.join(TASKS)}")
    return _answer(question)


def check(prompt: str, answer: str) -> bool:
    """Whether `answer` is right for `prompt`; leading and trailing white space is ignored."""
    return answer.strip() == expected_answer(prompt)
