"""Sequences of nothing but a prompt, for tests that hand them to a part of the scheduler."""

from __future__ import annotations

from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.scheduling.sequence import Sequence, outcomes_of


def prompt(tokens: int, *, number: int = 0, output: int = 9, arrival: float = 0.0) -> Sequence:
    """Create a sequence with a prompt of `tokens` tokens that will certainly generate `output` tokens."""
    lengths = LengthDistribution((output,))
    request = Request(str(number), (3,) * tokens, output, lengths)
    return Sequence(number, request, outcomes=outcomes_of(lengths, output), arrival=arrival)
