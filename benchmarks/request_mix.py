"""Which requests a benchmark serves: lengths like people's, a quarter as long, so that a CPU ends.

Lengths come from a trace, or from a synthetic mix where no trace is given; what the prompts say is
random, since only their lengths cost anything.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

SHRINK = 4
LONGEST_PROMPT = 1_024
"""Prompt tokens of a trace's row at most, before shrinking: TD-Pipe's own filter."""
SYNTHETIC = "synthetic lognormal"
_KV_SHARE = 0.4
"""Of what all requests at once would need: so little that scheduling matters."""
_COLUMNS = ("num_prefill_tokens", "num_decode_tokens")
_MEAN_AND_MEDIAN = ((378.0, 297.0), (415.0, 399.0))
"""Of ShareGPT's prompts and outputs in Llama-2 tokens behind that filter. As a lognormal the outputs
vary less (standard deviation 119) than they do there (271)."""


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
    return trace_lengths(trace, count, seed) if trace else synthetic_lengths(count, seed)


def scarce_kv_tokens(lengths: list[tuple[int, int]]) -> int:
    """Tokens of a KV cache that holds only a part of these requests at once."""
    return int(_KV_SHARE * sum(prompt + output for prompt, output in lengths))


def trace_lengths(file: Path, count: int, seed: int) -> list[tuple[int, int]]:
    """`count` rows of a trace, drawn without replacement: prompt and output tokens, shrunk.

    Args:
        file: a CSV with the columns num_prefill_tokens and num_decode_tokens.
        count: rows to draw from those with at most `LONGEST_PROMPT` prompt tokens.
        seed: of the draw.

    Raises:
        SettingsError: the file is not such a CSV or has too few rows.
    """
    columns = " and ".join(_COLUMNS)
    try:
        with file.open(newline="") as lines:
            rows = [tuple(int(row[name]) for name in _COLUMNS) for row in csv.DictReader(lines)]
    except OSError as error:
        raise SettingsError("--trace", str(error), "give a CSV file, or leave it out") from error
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{file} lacks whole numbers in {columns}"
        raise SettingsError("--trace", problem, "give a CSV with these columns") from error
    fitting = [row for row in rows if row[0] <= LONGEST_PROMPT]
    if len(fitting) < count:
        problem = f"{file} has {len(fitting)} rows of up to {LONGEST_PROMPT} prompt tokens"
        raise SettingsError("--trace", problem, f"ask for no more than that, not {count}")
    drawn = np.random.default_rng(seed).choice(len(fitting), count, replace=False)
    return [_shrunk(*fitting[index]) for index in drawn]


def synthetic_lengths(count: int, seed: int) -> list[tuple[int, int]]:
    """`count` prompt and output tokens, lognormal with ShareGPT's means and medians, shrunk."""
    random = np.random.default_rng(seed)
    columns = [
        random.lognormal(np.log(median), np.sqrt(2 * np.log(mean / median)), count)
        for mean, median in _MEAN_AND_MEDIAN
    ]
    return [_shrunk(int(prompt), int(output)) for prompt, output in zip(*columns, strict=True)]


def make_requests(
    lengths: list[tuple[int, int]], vocabulary: int, seed: int
) -> tuple[MixRequest, ...]:
    """Requests of these lengths with random prompts."""
    random = np.random.default_rng(seed)
    return tuple(
        MixRequest(tuple(random.integers(vocabulary, size=prompt).tolist()), output)
        for prompt, output in lengths
    )


def _shrunk(prompt: int, output: int) -> tuple[int, int]:
    return max(1, prompt // SHRINK), max(1, output // SHRINK)
