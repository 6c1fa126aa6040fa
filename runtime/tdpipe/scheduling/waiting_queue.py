"""Sequences that wait for KV: those that lost theirs first, then by arrival.

Looking at the head, ending a sequence and asking for the length cost no time in the number waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.sequence import Sequence


class WaitingQueue:
    """Ordered by arrival within the preempted and within the new."""

    def __init__(self) -> None:
        self._new: OrderedDict[int, Sequence] = OrderedDict()
        self._preempted: dict[int, Sequence] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._preempted)

    def __contains__(self, sequence: Sequence) -> bool:
        return self.find(sequence.number) is not None

    def __iter__(self) -> Iterator[Sequence]:
        for number in sorted(self._preempted):
            yield self._preempted[number]
        yield from self._new.values()

    def find(self, number: int) -> Sequence | None:
        """The waiting sequence of that number."""
        return self._preempted.get(number) or self._new.get(number)

    def append(self, sequence: Sequence) -> None:
        """Queue a new sequence; numbers ascend."""
        self._new[sequence.number] = sequence

    def put_back(self, sequence: Sequence) -> None:
        """Queue a sequence that lost its KV."""
        self._preempted[sequence.number] = sequence

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        if self._preempted.pop(sequence.number, None) is None:
            self._new.pop(sequence.number, None)
