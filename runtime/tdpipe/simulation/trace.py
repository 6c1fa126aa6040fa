"""Lengths and arrivals of real requests, from the CSV files in which they are published.

Two layouts are known by their columns: lengths alone (num_prefill_tokens, num_decode_tokens), and lengths with times of
arrival (TIMESTAMP, ContextTokens, GeneratedTokens).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

_LENGTHS = ("num_prefill_tokens", "num_decode_tokens")
_ARRIVALS = ("ContextTokens", "GeneratedTokens")
_TIME = "TIMESTAMP"
SYNTHETIC = "synthetic"
_MEAN_AND_MEDIAN = ((378.0, 297.0), (415.0, 399.0))
"""Of prompts and outputs that ShareGPT's have in Llama-2 tokens, prompts of up to 1,024."""
_SYNTHETIC_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace."""

    prompt_tokens: int
    output_tokens: int
    arrival: float
    """Seconds from the trace's first request; 0 where the trace tells none."""


def read_trace(path: Path | None, longest_prompt: int | None = None) -> list[TraceRow]:
    """Rows of a CSV, in its order, or of the synthetic mix where there is none.

    Those with empty prompts or outputs, or too long a prompt, are left out.

    Raises:
        SettingsError: the file is not there, of neither layout, or holds what is no number of tokens; no row is left.
    """
    rows = synthetic_trace() if path is None else _read(path)
    kept = [row for row in rows if row.prompt_tokens > 0 and row.output_tokens > 0]
    if not kept:
        raise SettingsError("--trace", f"{path} has no request", "give one with some")
    if longest_prompt is not None:
        kept = [row for row in kept if row.prompt_tokens <= longest_prompt]
    if not kept:
        problem = f"every prompt is longer than {longest_prompt} tokens"
        raise SettingsError("--longest-prompt", problem, "raise it")
    first = min(row.arrival for row in kept)
    return [replace(row, arrival=row.arrival - first) for row in kept]


def _read(path: Path) -> list[TraceRow]:
    """As they stand, with absolute times."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames
            if columns is None:
                raise SettingsError("--trace", f"{path} is empty", "give one with requests")
            names = next(
                (each for each in (_LENGTHS, _ARRIVALS) if set(each) <= set(columns)), None
            )
            if names is None:
                known = " or ".join(", ".join(each) for each in (_LENGTHS, (_TIME, *_ARRIVALS)))
                raise SettingsError(
                    "--trace", f"{path} has other columns", f"give a CSV with {known}"
                )
            return [
                TraceRow(_tokens(row[names[0]]), _tokens(row[names[1]]), _seconds(row.get(_TIME)))
                for row in reader
            ]
    except OSError as error:
        raise SettingsError("--trace", f"{path}: {error.strerror}", "give a CSV file") from error
    except (TypeError, ValueError, csv.Error) as error:
        problem = f"{path}, line {reader.line_num}: {error}"
        raise SettingsError("--trace", problem, "mend or remove the line") from error


def synthetic_trace(seed: int = 0) -> list[TraceRow]:
    """Lognormal lengths with ShareGPT's means and medians, where no trace is at hand; outputs of up to 1,024."""
    random = np.random.default_rng(seed)
    columns = [
        random.lognormal(np.log(median), np.sqrt(2 * np.log(mean / median)), _SYNTHETIC_ROWS)
        for mean, median in _MEAN_AND_MEDIAN
    ]
    prompts, outputs = (np.clip(column, 1, 1_024).astype(int).tolist() for column in columns)
    return [TraceRow(*lengths, 0.0) for lengths in zip(prompts, outputs, strict=True)]


def sample_size(rows: list[TraceRow], asked: int | None, usual: int) -> int:
    """Requests to draw: those asked for, else the usual number, or all of a shorter trace."""
    return min(usual, len(rows)) if asked is None else asked


def sample(rows: list[TraceRow], count: int, seed: int, *, arrivals: bool) -> list[TraceRow]:
    """`count` rows: with `arrivals` a stretch of the trace from a random start, else drawn without replacement, at 0 s.

    Raises:
        SettingsError: there are fewer.
    """
    if count > len(rows):
        problem = f"{count} wanted, the trace has {len(rows)} that are neither empty nor left out"
        raise SettingsError("--requests", problem, "ask for fewer")
    random = np.random.default_rng(seed)
    if not arrivals:
        drawn = random.choice(len(rows), count, replace=False)
        return [TraceRow(rows[i].prompt_tokens, rows[i].output_tokens, 0.0) for i in drawn]
    ordered = sorted(rows, key=lambda row: row.arrival)
    start = int(random.integers(len(ordered) - count + 1))
    stretch = ordered[start : start + count]
    first = stretch[0].arrival
    return [TraceRow(row.prompt_tokens, row.output_tokens, row.arrival - first) for row in stretch]


def _tokens(text: str | None) -> int:
    if text is None or not text.strip().isdecimal():
        raise ValueError(f"{text or 'nothing'!r} where a number of tokens should be")
    return int(text)


def _seconds(timestamp: str | None) -> float:
    if timestamp is None:
        return 0.0
    time = datetime.fromisoformat(timestamp)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
