"""Token sequences on which the demo model is trained: prompts with answers, as raw text and as chats.

Only the answers count for the loss, so each sequence has labels that mask the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from examples.demo_model.phrasing import has_end_mark
from examples.demo_model.tasks import Example, Split, examples, small_talk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerFast

IGNORED = -100  # the label that PyTorch's cross entropy ignores
MAX_DIALOGUE_TOKENS = 420  # longer chats are rare and cost more training time than they are worth

# Relative number of examples of each task; harder tasks get more.
TASK_SHARES = {"count": 20, "repeat": 15, "reverse": 30, "sort": 25, "spell": 10, "small talk": 3}
SYSTEM_PROMPTS: tuple[str, ...] = (
    "You are a helpful assistant.",
    "You are a careful assistant. Answer with the result only.",
    "Be brief.",
    "Answer the question.",
    "You count, repeat, reverse, sort and spell for the user. Do not explain anything.",
)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Token ids with labels of the same length; `task` is the task of the last answer."""

    task: str
    ids: list[int]
    labels: list[int]


class DialogueStream:
    """An endless stream of dialogues from the training split, determined by its seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._tokenizer = tokenizer
        self._rng = Random(f"{seed}:dialogues")
        self._examples = {
            task: small_talk(seed) if task == "small talk" else examples(task, Split.TRAIN, seed)
            for task in TASK_SHARES
        }

    def __iter__(self) -> Iterator[Dialogue]:
        """Yield raw prompts as 40% of the dialogues and chats of one to three turns as the others."""
        while True:
            kind = self._rng.random()
            dialogue = self._raw() if kind < 0.4 else self._chat(1 if kind < 0.8 else 3)
            if len(dialogue.ids) <= MAX_DIALOGUE_TOKENS:
                yield dialogue

    def _draw(self) -> Example:
        tasks, shares = zip(*TASK_SHARES.items(), strict=True)
        return next(self._examples[self._rng.choices(tasks, shares)[0]])

    def _raw(self) -> Dialogue:
        example = self._draw()
        if has_end_mark(example.prompt) and self._rng.random() < 0.4:
            parts = [(example.prompt, False), (f"\n{example.answer}", True)]
        else:
            parts = [(f"{example.prompt}\n", False), (example.answer, True)]
        return self._encode(example.task, [*parts, (self._tokenizer.eos_token, True)])

    def _chat(self, max_turns: int) -> Dialogue:
        parts: list[tuple[str, bool]] = []
        if self._rng.random() < 0.25:
            parts.append((f"<|system|>{self._rng.choice(SYSTEM_PROMPTS)}", False))
        for _ in range(self._rng.randint(min(2, max_turns), max_turns)):
            example = self._draw()
            parts.append((f"<|user|>{example.prompt}<|assistant|>", False))
            parts.append((f"{example.answer}{self._tokenizer.eos_token}", True))
        return self._encode(example.task, parts)

    def _encode(self, task: str, parts: list[tuple[str, bool]]) -> Dialogue:
        ids, labels = [self._tokenizer.bos_token_id], [IGNORED]
        for text, is_answer in parts:
            tokens = self._tokenizer.encode(text, add_special_tokens=False)
            ids += tokens
            labels += tokens if is_answer else [IGNORED] * len(tokens)
        return Dialogue(task, ids, labels)
