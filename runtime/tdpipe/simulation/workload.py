"""Jobs of a simulation: requests with lengths and arrival times, without texts.

Only the simulator knows the output length of a request; the scheduler gets a prediction of it.
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
    """A request and its outcome."""

    prompt_tokens: int
    output_tokens: int
    """Number of output tokens, including the end token."""
    lengths: LengthDistribution
    """The prediction of `output_tokens` that the scheduler gets."""
    max_tokens: int
    """Limit of the request; at least `output_tokens`."""
    arrival: float = 0.0
    """Seconds after the start of the run."""


def make_jobs(
    drawn: Sequence[TraceRow],
    population: Sequence[TraceRow],
    knowledge: Knowledge,
    seed: int,
    max_tokens: int | None = None,
) -> list[Job]:
    """Make jobs from rows of a trace.

    Args:
        drawn: The rows to serve.
        population: The rows that the predictor has learned from.
        knowledge: The kind of prediction that the scheduler gets.
        seed: The seed of the predictor's errors.
        max_tokens: The limit of every request; None takes the longest output of the population.

    Raises:
        SettingsError: An output is longer than `max_tokens`.
    """
    longest = max(row.output_tokens for row in population)
    limit = longest if max_tokens is None else max_tokens
    if max(row.output_tokens for row in drawn) > limit:
        raise SettingsError(
            "--max-tokens", f"the trace has outputs of {longest} tokens", "raise it"
        )
    predicted = predictions(
        [row.output_tokens for row in drawn],
        [row.output_tokens for row in population],
        knowledge,
        seed,
    )
    return [
        Job(row.prompt_tokens, row.output_tokens, lengths, limit, row.arrival)
        for row, lengths in zip(drawn, predicted, strict=True)
    ]
