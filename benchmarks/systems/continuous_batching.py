"""Continuous batching over a fixed number of rows, for engines whose API leaves batching to the caller."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.request_mix import MixRequest


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one row that a step computes."""

    row: int
    start: int
    """Position of the first token in its sequence."""
    tokens: tuple[int, ...]
    samples: bool
    """Whether the next token is sampled after the last of these tokens."""


@dataclass(slots=True)
class _RowState:
    number: int
    """Index of the request in the row."""
    tokens: list[int]
    end: int
    """Number of prompt and output tokens of the finished request."""
    computed: int = 0
    """Number of tokens whose KV has been computed."""


class ContinuousBatcher:
    """Assigns requests to free rows in their order, and puts decode before prefill into each step.

    Args:
        requests: Requests to serve.
        rows: Maximum number of sequences in a step.
        budget: Maximum number of tokens in a step; at least `rows`.
    """

    def __init__(self, requests: Sequence[MixRequest], rows: int, budget: int) -> None:
        self._requests = requests
        self._waiting = deque(range(len(requests)))
        self._rows: list[_RowState | None] = [None] * rows
        self._budget = budget
        self._outputs: dict[int, tuple[int, ...]] = {}

    def next_step(self) -> list[Chunk]:
        """Return the chunks of the next step; the list is empty when all requests are done.

        The last token of a sequence is not computed, because no token follows it.
        """
        for row, state in enumerate(self._rows):
            if state is None and self._waiting:
                number = self._waiting.popleft()
                request = self._requests[number]
                end = len(request.prompt) + request.output_tokens
                self._rows[row] = _RowState(number, list(request.prompt), end)
        left = self._budget
        chunks = []
        states = [(row, state) for row, state in enumerate(self._rows) if state is not None]
        for row, state in sorted(
            states, key=lambda each: len(each[1].tokens) - each[1].computed > 1
        ):
            tokens = tuple(state.tokens[state.computed : state.computed + left])
            if tokens:
                end = state.computed + len(tokens)
                chunks.append(Chunk(row, state.computed, tokens, end == len(state.tokens)))
                state.computed = end
                left -= len(tokens)
        return chunks

    def complete_step(self, chunks: Sequence[Chunk], sampled: Sequence[int]) -> list[int]:
        """Append the tokens of a step, one for each chunk that samples, in order.

        Returns:
            Rows whose requests are done.
        """
        free = []
        for chunk, token in zip((each for each in chunks if each.samples), sampled, strict=True):
            state = self._rows[chunk.row]
            assert state is not None
            state.tokens.append(token)
            if len(state.tokens) == state.end:
                prompt = len(self._requests[state.number].prompt)
                self._outputs[state.number] = tuple(state.tokens[prompt:])
                self._rows[chunk.row] = None
                free.append(chunk.row)
        return free

    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """Return the output tokens of each request, in the order of the requests, once all are done."""
        return tuple(self._outputs[number] for number in range(len(self._requests)))
