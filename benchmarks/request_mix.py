"""Which requests a benchmark serves on a CPU: lengths like people's, a quarter as long, so that it ends.

What the prompts say is random, since only their lengths cost anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.simulation.trace import read_trace, sample

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_PROMPT = 1_024
"""Prompt tokens of a trace's row at most, before shrinking: TD-Pipe's own filter."""
_SHRINK = 4
_KV_SHARE = 0.4
"""Of what all requests at once would need: so little that scheduling matters."""


@dataclass(frozen=True, slots=True)
class MixRequest:
    """One request, which is to generate exactly `output_tokens`."""

    prompt: tuple[int, ...]
    output_tokens: int


def mix_lengths(trace: Path | None, count: int, seed: int) -> list[tuple[int, int]]:
    """Prompt and output tokens of `count` requests, from `trace` or, without one, from the synthetic mix.

    Raises:
        SettingsError: the trace cannot be read or is too short.
    """
    rows = read_trace(trace, LONGEST_PROMPT)
    return [
        (max(1, row.prompt_tokens // _SHRINK), max(1, row.output_tokens // _SHRINK))
        for row in sample(rows, count, seed, arrivals=False)
    ]


def scarce_kv_tokens(lengths: list[tuple[int, int]]) -> int:
    """Tokens of a KV cache that holds only a part of these requests at once."""
    return int(_KV_SHARE * sum(prompt + output for prompt, output in lengths))


def make_requests(
    lengths: list[tuple[int, int]], vocabulary: int, seed: int
) -> tuple[MixRequest, ...]:
    """Requests of these lengths with random prompts."""
    random = np.random.default_rng(seed)
    return tuple(
        MixRequest(tuple(random.integers(vocabulary, size=prompt).tolist()), output)
        for prompt, output in lengths
    )
