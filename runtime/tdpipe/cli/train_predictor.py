"""`tdpipe train-predictor`: trains a length predictor on a log of prompts and output lengths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdpipe.cli.output_file import check_output, write_output
from tdpipe.core.errors import SettingsError, TDPipeError

if TYPE_CHECKING:
    from tdpipe.prediction.evaluation import Evaluation
    from tdpipe.prediction.training_rows import TrainingRows

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
    from tdpipe.prediction.request_log import read_request_log

    check_output(output, "--output")
    rows = read_request_log(data, "--data")
    if len(rows) < _MIN_ROWS:
        problem = f"{data} has {len(rows)} rows, too few to train on and to evaluate with"
        raise SettingsError("--data", problem, f"give at least {_MIN_ROWS}")
    evaluation = _evaluate(rows, seed)
    typer.echo(_table(evaluation))
    if evaluation.choice != "candidate":
        raise TDPipeError(
            f"the predictor is hardly better than always predicting the mean, so {output} is not written; "
            "give more rows, or rows whose prompts say more about the output length"
        )
    write_output(output, encode_model(evaluation.candidate), "--output")
    typer.echo(f"\nwrote {output}; to serve with it, set predictor.path")


def _evaluate(rows: TrainingRows, seed: int) -> Evaluation:
    import os

    import numpy as np

    from tdpipe.prediction.training import HELD_OUT_DIVISOR, train_and_evaluate

    # The rows are drawn at random, because nothing guarantees the order of the file.
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = len(rows) // HELD_OUT_DIVISOR
    held_out, training = rows.select(order[:cut]), rows.select(order[cut:])
    return train_and_evaluate(training, held_out, None, threads=len(os.sched_getaffinity(0)))


def _table(evaluation: Evaluation) -> str:
    names = {"candidate": "predictor", "mean": "always the mean"}
    sums = [count for count in _SUM_SIZES if count <= evaluation.held_out_rows]
    header = ["", "pinball loss, tokens", *(f"error of the sum of {count}" for count in sums)]
    lines = [
        f"trained on {evaluation.training_rows} rows, evaluated on {evaluation.held_out_rows} held-out rows",
        "",
        f"|{' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for choice, score in evaluation.scores.items():
        errors = " | ".join(f"{score.sum_error(count):.1%}" for count in sums)
        lines.append(f"| {names[choice]} | {score.pinball:.1f} | {errors} |")
    return "\n".join(lines)
