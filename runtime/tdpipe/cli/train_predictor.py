"""`tdpipe train-predictor`: trains a length predictor on a log of prompts and output lengths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdpipe.cli.output_file import check_output, write_output
from tdpipe.core.errors import SettingsError, TDPipeError

if TYPE_CHECKING:
    from tdpipe.prediction.training_rows import TrainingRows
    from tdpipe.prediction.verdict import Verdict

EPILOG = """\b
Each line is one finished request, in the order in which the requests arrived:
  {"prompt": "Spell apple.", "output_tokens": 10, "max_tokens": 64, "tenant": "ada"}

\b
prompt         text of the prompt; for a chat all messages, joined by line breaks
output_tokens  number of output tokens
max_tokens     the request's limit; an output of this length counts as cut off
prompt_tokens, temperature and tenant (OpenAI's `user`) are optional and improve the predictor

\b
Example:
  tdpipe train-predictor --data log.jsonl --output lengths.npz
  TDPIPE_PREDICTOR__PATH=lengths.npz tdpipe serve
"""
_MIN_ROWS = 200
_HELD_OUT_DIVISOR = 5
"""One row in this many is held out for the evaluation."""
_SUM_SIZES = (32, 128, 512)
"""Numbers of requests whose summed output length is predicted in the evaluation."""


def train_predictor(
    data: Annotated[
        Path, typer.Option(help="JSONL file of finished requests.", metavar="FILE.jsonl")
    ],
    output: Annotated[Path, typer.Option(help="Where to write the predictor.", metavar="FILE")],
    seed: Annotated[int, typer.Option(min=0, help="Seed that chooses the held-out rows.")] = 0,
) -> None:
    """Train a predictor of output lengths, and evaluate it on held-out rows."""
    from tdpipe.prediction.model_file import encode_model
    from tdpipe.prediction.row_file import read_rows

    check_output(output, "--output")
    rows = read_rows(data, "--data")
    if len(rows) < _MIN_ROWS:
        problem = f"{data} has {len(rows)} rows, too few to train on and to evaluate with"
        raise SettingsError("--data", problem, f"give at least {_MIN_ROWS}")
    verdict = _judge(rows, seed)
    typer.echo(_table(verdict))
    if verdict.choice != "candidate":
        raise TDPipeError(
            f"the predictor is hardly better than always predicting the mean, so {output} is not written; "
            "give more rows, or rows whose prompts say more about the output length"
        )
    write_output(output, encode_model(verdict.candidate), "--output")
    typer.echo(f"\nwrote {output}; to serve with it, set predictor.path")


def _judge(rows: TrainingRows, seed: int) -> Verdict:
    import os

    import numpy as np

    from tdpipe.prediction.training import judge

    # The rows are drawn at random, because nothing guarantees the order of the file.
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = len(rows) // _HELD_OUT_DIVISOR
    newer, older = rows.at(order[:cut]), rows.at(order[cut:])
    return judge(older, newer, None, threads=len(os.sched_getaffinity(0)))


def _table(verdict: Verdict) -> str:
    names = {"candidate": "predictor", "mean": "always the mean"}
    sums = [count for count in _SUM_SIZES if count <= verdict.judged]
    header = ["", "pinball loss, tokens", *(f"error of the sum of {count}" for count in sums)]
    lines = [
        f"trained on {verdict.trained} rows, evaluated on {verdict.judged} held-out rows",
        "",
        f"|{' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for choice, score in verdict.scores.items():
        errors = " | ".join(f"{score.sum_error(count):.1%}" for count in sums)
        lines.append(f"| {names[choice]} | {score.pinball:.1f} | {errors} |")
    return "\n".join(lines)
