"""Sequences that wait for KV: those that lost theirs first, then by arrival; or the longest expected output first.

Looking at either head, ending a sequence and asking for sums cost no time in the number waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.sequence import Sequence

_BUCKET = 8
"""Output tokens within which lengths count as equal; expectations are no sharper."""


@dataclass(frozen=True, slots=True)
class Load:
    """Sums over waiting sequences, for means of what is to come."""

    sequences: int = 0
    tokens: float = 0.0
    """Tokens to prefill."""
    output: float = 0.0
    """Expected output tokens to come."""
    tokens_output: float = 0.0
    """Of each sequence's tokens times its expected output."""
    output_squared: float = 0.0
    """Of each sequence's expected squared output."""
    tokens_squared: float = 0.0
    """Of each sequence's squared tokens."""


class WaitingQueue:
    """Ordered by arrival within the preempted and within the new."""

    def __init__(self) -> None:
        self._new: OrderedDict[int, Sequence] = OrderedDict()
        self._preempted: dict[int, Sequence] = {}
        self._by_length: dict[int, OrderedDict[int, Sequence]] = {}
        self._indexed: dict[int, tuple[float, float, float]] = {}
        """What each sequence was counted with: tokens, output and squared output."""
        self._sums = [0.0] * 5

    def __len__(self) -> int:
        return len(self._new) + len(self._preempted)

    def __contains__(self, sequence: Sequence) -> bool:
        return self.find(sequence.number) is not None

    def __iter__(self) -> Iterator[Sequence]:
        for number in sorted(self._preempted):
            yield self._preempted[number]
        yield from self._new.values()

    @property
    def load(self) -> Load:
        """Sums over all that wait."""
        return Load(len(self), *self._sums)

    def longest_first(self) -> Iterator[Sequence]:
        """By expected output, and by arrival among equals; nothing may be added or removed meanwhile."""
        for length in sorted(self._by_length, reverse=True):
            yield from self._by_length[length].values()

    def find(self, number: int) -> Sequence | None:
        """The waiting sequence of that number."""
        return self._preempted.get(number) or self._new.get(number)

    def append(self, sequence: Sequence) -> None:
        """Queue a new sequence; numbers ascend."""
        self._new[sequence.number] = sequence
        self._index(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Queue a sequence that lost its KV."""
        self._preempted[sequence.number] = sequence
        self._index(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        if self._preempted.pop(sequence.number, None) or self._new.pop(sequence.number, None):
            self._forget(sequence)

    def revised(self, sequence: Sequence) -> None:
        """The sequence's expected length has changed, or its tokens."""
        if sequence in self:
            self._forget(sequence)
            self._index(sequence)

    def _index(self, sequence: Sequence) -> None:
        left = sequence.left.astype(float)
        output = float(left.mean())
        self._indexed[sequence.number] = (
            float(sequence.length),
            output,
            float(left @ left) / len(left),
        )
        self._by_length.setdefault(int(output) // _BUCKET, OrderedDict())[sequence.number] = (
            sequence
        )
        self._add(sequence.number, 1.0)

    def _forget(self, sequence: Sequence) -> None:
        self._add(sequence.number, -1.0)
        _, output, _ = self._indexed.pop(sequence.number)
        bucket = self._by_length[int(output) // _BUCKET]
        del bucket[sequence.number]
        if not bucket:
            del self._by_length[int(output) // _BUCKET]

    def _add(self, number: int, sign: float) -> None:
        tokens, output, squared = self._indexed[number]
        values = (tokens, output, tokens * output, squared, tokens * tokens)
        for index, value in enumerate(values):
            self._sums[index] += sign * value
