"""Traces: lengths and arrival times of real requests, from the CSV files in which they are published.

Two layouts are recognised by their columns: lengths only (num_prefill_tokens, num_decode_tokens), and lengths with
arrival times (TIMESTAMP, ContextTokens, GeneratedTokens).
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

_LENGTH_COLUMNS = ("num_prefill_tokens", "num_decode_tokens")
_ARRIVAL_COLUMNS = ("ContextTokens", "GeneratedTokens")
_TIME_COLUMN = "TIMESTAMP"
SYNTHETIC = "synthetic"
_MEAN_AND_MEDIAN = ((378.0, 297.0), (415.0, 399.0))
"""Mean and median Llama-2 tokens of ShareGPT's prompts and outputs, for prompts of up to 1,024 tokens."""
_SYNTHETIC_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace."""

    prompt_tokens: int
    output_tokens: int
    arrival: float
    """Seconds after the trace's first request; 0 if the trace has no times."""


def read_trace(path: Path | None, longest_prompt: int | None = None) -> list[TraceRow]:
    """Read the rows of a trace; rows with an empty prompt or output are left out.

    Args:
        path: The CSV file; None stands for the synthetic mix.
        longest_prompt: The limit of prompt tokens, above which rows are left out; None keeps all.

    Raises:
        SettingsError: The file does not exist, has neither layout or an invalid number of tokens, or no row is left.
    """
    rows = synthetic_trace() if path is None else _read(path)
    kept = [row for row in rows if row.prompt_tokens > 0 and row.output_tokens > 0]
    if not kept:
        raise SettingsError("--trace", f"{path} has no request", "give a trace with requests")
    if longest_prompt is not None:
        kept = [row for row in kept if row.prompt_tokens <= longest_prompt]
    if not kept:
        problem = f"every prompt is longer than {longest_prompt} tokens"
        raise SettingsError("--longest-prompt", problem, "raise it")
    first = min(row.arrival for row in kept)
    return [replace(row, arrival=row.arrival - first) for row in kept]


def _read(path: Path) -> list[TraceRow]:
    """Read all rows, with absolute times."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames
            if columns is None:
                raise SettingsError("--trace", f"{path} is empty", "give a trace with requests")
            names = next(
                (each for each in (_LENGTH_COLUMNS, _ARRIVAL_COLUMNS) if set(each) <= set(columns)),
                None,
            )
            if names is None:
                known = " or ".join(
                    ", ".join(each) for each in (_LENGTH_COLUMNS, (_TIME_COLUMN, *_ARRIVAL_COLUMNS))
                )
                raise SettingsError(
                    "--trace", f"{path} has other columns", f"give a CSV with {known}"
                )
            return [
                TraceRow(
                    _tokens(row[names[0]]), _tokens(row[names[1]]), _seconds(row.get(_TIME_COLUMN))
                )
                for row in reader
            ]
    except OSError as error:
        raise SettingsError("--trace", f"{path}: {error.strerror}", "give a CSV file") from error
    except (TypeError, ValueError, csv.Error) as error:
        problem = f"{path}, line {reader.line_num}: {error}"
        raise SettingsError("--trace", problem, "correct or remove the line") from error


def synthetic_trace(seed: int = 0) -> list[TraceRow]:
    """Draw lognormal lengths of up to 1,024 tokens with ShareGPT's means and medians, for use without a trace."""
    random = np.random.default_rng(seed)
    columns = [
        random.lognormal(np.log(median), np.sqrt(2 * np.log(mean / median)), _SYNTHETIC_ROWS)
        for mean, median in _MEAN_AND_MEDIAN
    ]
    prompts, outputs = (np.clip(column, 1, 1_024).astype(int).tolist() for column in columns)
    return [TraceRow(*lengths, 0.0) for lengths in zip(prompts, outputs, strict=True)]


def sample_size(rows: list[TraceRow], requested: int | None, default: int) -> int:
    """Return the number of rows to draw: as requested, else the default, or all rows of a shorter trace."""
    return min(default, len(rows)) if requested is None else requested


def sample(rows: list[TraceRow], count: int, seed: int, *, arrivals: bool) -> list[TraceRow]:
    """Draw `count` rows.

    Args:
        rows: The rows of the trace.
        count: The number of rows to draw.
        seed: The seed of the draw.
        arrivals: Whether to take consecutive requests with their arrival times, from a random one on. Otherwise rows
            are drawn without replacement and arrive at 0 s.

    Raises:
        SettingsError: The trace has fewer rows.
    """
    if count > len(rows):
        problem = f"{count} wanted, but the trace has only {len(rows)} usable requests"
        raise SettingsError("--requests", problem, "ask for fewer")
    random = np.random.default_rng(seed)
    if not arrivals:
        drawn = random.choice(len(rows), count, replace=False)
        return [TraceRow(rows[i].prompt_tokens, rows[i].output_tokens, 0.0) for i in drawn]
    ordered = sorted(rows, key=lambda row: row.arrival)
    start = int(random.integers(len(ordered) - count + 1))
    window = ordered[start : start + count]
    first = window[0].arrival
    return [TraceRow(row.prompt_tokens, row.output_tokens, row.arrival - first) for row in window]


def _tokens(text: str | None) -> int:
    if text is None or not text.strip().isdecimal():
        raise ValueError(f"{text or 'nothing'!r} is not a number of tokens")
    return int(text)


def _seconds(timestamp: str | None) -> float:
    if timestamp is None:
        return 0.0
    time = datetime.fromisoformat(timestamp)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
