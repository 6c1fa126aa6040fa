"""The sequences that wait for KV, in two orders.

The first is preempted sequences and then new ones, each by arrival; the second is the longest expected output first.
Looking at the head of either order, ending a sequence and reading the sums take constant time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.sequence import Sequence

_LENGTH_BUCKET = 8
"""Number of output tokens within which lengths count as equal; predictions are not more exact."""


@dataclass(frozen=True, slots=True)
class Load:
    """Sums over the waiting sequences, from which means are taken."""

    sequences: int = 0
    tokens: float = 0.0
    """Number of tokens to prefill."""
    output: float = 0.0
    """Expected number of output tokens to come."""
    tokens_output: float = 0.0
    """Sum of each sequence's tokens times its expected output."""
    output_squared: float = 0.0
    """Sum of each sequence's expected squared output."""
    tokens_squared: float = 0.0
    """Sum of each sequence's squared tokens."""


class WaitingQueue:
    """Waiting sequences, the preempted ones first, each kind by arrival."""

    def __init__(self) -> None:
        self._new: OrderedDict[int, Sequence] = OrderedDict()
        self._preempted: dict[int, Sequence] = {}
        self._by_length: dict[int, OrderedDict[int, Sequence]] = {}
        self._indexed: dict[int, tuple[float, float, float]] = {}
        """Tokens, output and squared output with which each sequence is counted in the sums."""
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
        """Sums over all waiting sequences."""
        return Load(len(self), *self._sums)

    def longest_first(self) -> Iterator[Sequence]:
        """Yield the sequences by descending expected output, and by arrival where that is equal.

        Nothing may be added or removed meanwhile.
        """
        for length in sorted(self._by_length, reverse=True):
            yield from self._by_length[length].values()

    def find(self, number: int) -> Sequence | None:
        """Return the waiting sequence of that number, if there is one."""
        return self._preempted.get(number) or self._new.get(number)

    def append(self, sequence: Sequence) -> None:
        """Queue a new sequence, whose number is higher than those before it."""
        self._new[sequence.number] = sequence
        self._index(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Queue a sequence that lost its KV."""
        self._preempted[sequence.number] = sequence
        self._index(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out of the queue; one that does not wait is ignored."""
        if self._preempted.pop(sequence.number, None) or self._new.pop(sequence.number, None):
            self._forget(sequence)

    def update(self, sequence: Sequence) -> None:
        """Update the sums after a sequence has changed; one that does not wait is ignored."""
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
        self._by_length.setdefault(int(output) // _LENGTH_BUCKET, OrderedDict())[
            sequence.number
        ] = sequence
        self._add(sequence.number, 1.0)

    def _forget(self, sequence: Sequence) -> None:
        self._add(sequence.number, -1.0)
        _, output, _ = self._indexed.pop(sequence.number)
        bucket = self._by_length[int(output) // _LENGTH_BUCKET]
        del bucket[sequence.number]
        if not bucket:
            del self._by_length[int(output) // _LENGTH_BUCKET]

    def _add(self, number: int, sign: float) -> None:
        tokens, output, squared = self._indexed[number]
        values = (tokens, output, tokens * output, squared, tokens * tokens)
        for index, value in enumerate(values):
            self._sums[index] += sign * value
