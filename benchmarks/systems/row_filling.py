"""Continuous batching over a fixed number of rows, for engines that leave it to their caller."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.request_mix import MixRequest


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of one row to compute in a step."""

    row: int
    start: int
    """Position of the first."""
    tokens: tuple[int, ...]
    samples: bool
    """A token follows the last of these."""


@dataclass(slots=True)
class _Tenant:
    number: int
    tokens: list[int]
    end: int
    """Tokens of prompt and output, when all are there."""
    computed: int = 0


class RowFilling:
    """Requests come into free rows in their order, decode before prefill, up to a budget of tokens a step.

    Args:
        requests: to serve.
        rows: sequences at once.
        budget: tokens of a step, at least `rows`.
    """

    def __init__(self, requests: Sequence[MixRequest], rows: int, budget: int) -> None:
        self._requests = requests
        self._waiting = deque(range(len(requests)))
        self._rows: list[_Tenant | None] = [None] * rows
        self._budget = budget
        self._outputs: dict[int, tuple[int, ...]] = {}

    def next_step(self) -> list[Piece]:
        """What to compute next; empty when all is done. The last token of a sequence is not computed."""
        for row, tenant in enumerate(self._rows):
            if tenant is None and self._waiting:
                number = self._waiting.popleft()
                request = self._requests[number]
                end = len(request.prompt) + request.output_tokens
                self._rows[row] = _Tenant(number, list(request.prompt), end)
        left = self._budget
        pieces = []
        tenants = [(row, tenant) for row, tenant in enumerate(self._rows) if tenant is not None]
        for row, tenant in sorted(
            tenants, key=lambda each: len(each[1].tokens) - each[1].computed > 1
        ):
            tokens = tuple(tenant.tokens[tenant.computed : tenant.computed + left])
            if tokens:
                end = tenant.computed + len(tokens)
                pieces.append(Piece(row, tenant.computed, tokens, end == len(tenant.tokens)))
                tenant.computed = end
                left -= len(tokens)
        return pieces

    def take(self, pieces: Sequence[Piece], sampled: Sequence[int]) -> list[int]:
        """Book a step's tokens, one for each piece that samples, in order.

        Returns:
            Rows that became free.
        """
        free = []
        for piece, token in zip((each for each in pieces if each.samples), sampled, strict=True):
            tenant = self._rows[piece.row]
            assert tenant is not None
            tenant.tokens.append(token)
            if len(tenant.tokens) == tenant.end:
                prompt = len(self._requests[tenant.number].prompt)
                self._outputs[tenant.number] = tuple(tenant.tokens[prompt:])
                self._rows[piece.row] = None
                free.append(piece.row)
        return free

    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """Of each request, in their order, once all are done."""
        return tuple(self._outputs[number] for number in range(len(self._requests)))
