"""Measured times of a whole model on one GPU, and a pipeline whose stages share them evenly.

A row of a table is the time of one forward pass of a prompt of n tokens through all layers and the head. If no single
GPU can hold the model, it is the sum over the GPUs that held its parts.
"""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tdpipe.core.errors import SettingsError
from tdpipe.scheduling.cost_model import CostModel, StageCost

if TYPE_CHECKING:
    from pathlib import Path

    from tdpipe.core.step import FloatArray, IntArray

_TOKENS, _MILLISECONDS = "Total Length", "Execute Time"
_MAX_TOKENS = 2**31 - 1
"""Largest number of batch tokens in a table, which the cost model keeps as int32."""


class TimeTable(NamedTuple):
    """Times of a whole model on one GPU."""

    tokens: IntArray
    """[n] int32 batch tokens, ascending."""
    seconds: FloatArray
    """[n] float64 seconds."""


def read_time_table(path: Path, option: str) -> TimeTable:
    """Read a CSV with the columns `Total Length` (tokens) and `Execute Time` (milliseconds).

    Args:
        path: The file.
        option: The option that named the file, for error messages.

    Raises:
        SettingsError: The file cannot be read, lacks a column or rows, or has an invalid value.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            # Some profilers write a space after the comma.
            rows = list(csv.reader(file, skipinitialspace=True))
    except OSError as error:
        raise SettingsError(option, f"{path}: {error.strerror}", "give a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(option, f"{path} cannot be read: {error}", "give a CSV file") from error
    header = [name.strip() for name in rows[0]] if rows else []
    for name in (_TOKENS, _MILLISECONDS):
        if name not in header:
            remedy = f"give a CSV with {_TOKENS} and {_MILLISECONDS} in its first line"
            raise SettingsError(option, f"{path} has no column {name!r}", remedy)
    columns = header.index(_TOKENS), header.index(_MILLISECONDS)
    tokens: list[int] = []
    seconds: list[float] = []
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            count, milliseconds = int(row[columns[0]]), float(row[columns[1]])
        except (IndexError, ValueError) as error:
            problem = f"line {line} of {path} is {','.join(row)!r}"
            raise SettingsError(option, problem, "give tokens and milliseconds") from error
        ascends = (tokens[-1] if tokens else 0) < count <= _MAX_TOKENS
        if not ascends or not 0 < milliseconds < math.inf:
            problem = f"line {line} of {path} has {count} tokens and {milliseconds} ms"
            remedy = f"give ascending tokens from 1 to at most {_MAX_TOKENS}, and times above 0"
            raise SettingsError(option, problem, remedy)
        tokens.append(count)
        seconds.append(milliseconds / 1e3)
    if not tokens:
        raise SettingsError(option, f"{path} has no rows", "give a measured table")
    return TimeTable(np.array(tokens, dtype=np.int32), np.array(seconds, dtype=np.float64))


def stage_costs(
    table: TimeTable, stages: int, kv_bytes_per_token: float, kv_bandwidth: float
) -> CostModel:
    """Return the cost of a pipeline whose stages each take an even share of a whole model's time.

    Args:
        table: The times of the whole model.
        stages: The number of stages, at least 1.
        kv_bytes_per_token: The KV bytes of a token in all layers.
        kv_bandwidth: B/s at which one GPU reads KV.
    """
    per_context = kv_bytes_per_token / stages / kv_bandwidth
    return CostModel((StageCost(table.tokens, table.seconds / stages, per_context),) * stages)
