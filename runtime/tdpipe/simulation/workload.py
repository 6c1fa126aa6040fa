"""What a simulated pipeline is asked: lengths and arrivals, without texts.

What a request's output length is stays with the simulator, and the scheduler gets only a prediction of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.length_knowledge import predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.simulation.length_knowledge import Knowledge
    from tdpipe.simulation.trace import TraceRow


@dataclass(frozen=True, slots=True)
class Job:
    """A request and what will become of it."""

    prompt_tokens: int
    output_tokens: int
    """Until its end token, which is counted."""
    lengths: LengthDistribution
    """What the scheduler is told of `output_tokens`."""
    max_tokens: int
    """What the request allows; at least `output_tokens`."""
    arrival: float = 0.0
    """Seconds from the start."""


def make_jobs(
    drawn: Sequence[TraceRow],
    population: Sequence[TraceRow],
    knowledge: Knowledge,
    seed: int,
    max_tokens: int | None = None,
) -> list[Job]:
    """Jobs of trace rows.

    Args:
        drawn: what is to be served.
        population: what the predictor has learned from.
        knowledge: what the scheduler is told of lengths.
        seed: of the predictor's errors.
        max_tokens: of every request; None is the population's longest output.

    Raises:
        SettingsError: an output is longer than `max_tokens`.
    """
    longest = max(row.output_tokens for row in population)
    bound = longest if max_tokens is None else max_tokens
    if max(row.output_tokens for row in drawn) > bound:
        raise SettingsError(
            "--max-tokens", f"the trace has outputs of {longest} tokens", "raise it"
        )
    told = predictions(
        [row.output_tokens for row in drawn],
        [row.output_tokens for row in population],
        knowledge,
        seed,
    )
    return [
        Job(row.prompt_tokens, row.output_tokens, lengths, bound, row.arrival)
        for row, lengths in zip(drawn, told, strict=True)
    ]
