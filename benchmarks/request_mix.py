"""Requests that a benchmark serves on a CPU.

Their lengths are a quarter of those in a trace, so that a run takes minutes. The prompts are random tokens, because
only their lengths affect throughput.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.simulation.trace import read_trace, sample

if TYPE_CHECKING:
    from pathlib import Path

MAX_PROMPT_TOKENS = 1_024
"""Longer prompts of a trace are left out, as in the TD-Pipe paper; applies before lengths are divided."""
_LENGTH_DIVISOR = 4
_KV_SHARE = 0.4
"""Size of the KV cache as a share of what all requests need at once, so that scheduling matters."""


@dataclass(frozen=True, slots=True)
class MixRequest:
    """A request that generates exactly `output_tokens`."""

    prompt: tuple[int, ...]
    output_tokens: int


def mix_lengths(trace: Path | None, count: int, seed: int) -> list[tuple[int, int]]:
    """Draw prompt and output lengths of `count` requests from a trace.

    Args:
        trace: CSV file of lengths; None uses the synthetic trace.
        count: Number of requests.
        seed: Seed of the draw.

    Raises:
        SettingsError: the trace cannot be read or is too short.
    """
    rows = read_trace(trace, MAX_PROMPT_TOKENS)
    return [
        (max(1, row.prompt_tokens // _LENGTH_DIVISOR), max(1, row.output_tokens // _LENGTH_DIVISOR))
        for row in sample(rows, count, seed, arrivals=False)
    ]


def scarce_kv_tokens(lengths: list[tuple[int, int]]) -> int:
    """Return the number of tokens of a KV cache that holds only a part of these requests at once."""
    return int(_KV_SHARE * sum(prompt + output for prompt, output in lengths))


def make_requests(
    lengths: list[tuple[int, int]], vocabulary: int, seed: int
) -> tuple[MixRequest, ...]:
    """Return requests of these lengths with random prompts."""
    random = np.random.default_rng(seed)
    return tuple(
        MixRequest(tuple(random.integers(vocabulary, size=prompt).tolist()), output)
        for prompt, output in lengths
    )
