"""`tdpipe train-predictor`: a length predictor from a log of prompts and output lengths."""

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
A row is one finished request, in the order in which they came:
  {"prompt": "Spell apple.", "output_tokens": 10, "max_tokens": 64, "tenant": "ada"}

\b
prompt         what the user wrote; of a chat all messages, a line each
output_tokens  how many tokens came
max_tokens     the request's bound; an output of as many counts as cut off
prompt_tokens, temperature, tenant (OpenAI's `user`) help, too, where they are known

\b
Example:
  tdpipe train-predictor --data log.jsonl --output lengths.npz
  TDPIPE_PREDICTOR__PATH=lengths.npz tdpipe serve
"""
_LEAST = 200
"""Rows, of which one in five judges."""
_JUDGES = 5
_SUMS = (32, 128, 512)


def train_predictor(
    data: Annotated[
        Path, typer.Option(help="JSONL file of finished requests.", metavar="FILE.jsonl")
    ],
    output: Annotated[Path, typer.Option(help="Where to write the predictor.", metavar="FILE")],
    seed: Annotated[int, typer.Option(min=0, help="Of which rows are held out to judge by.")] = 0,
) -> None:
    """Train a predictor of output lengths, and say how good it is on rows that it has not seen."""
    from tdpipe.prediction.model_file import encode_model
    from tdpipe.prediction.row_file import read_rows

    check_output(output, "--output")
    rows = read_rows(data, "--data")
    if len(rows) < _LEAST:
        problem = f"{data} has {len(rows)} rows, too few to learn from and to judge by"
        raise SettingsError("--data", problem, f"give at least {_LEAST}")
    verdict = _judge(rows, seed)
    typer.echo(_table(verdict))
    if verdict.choice != "candidate":
        raise TDPipeError(
            f"the predictor is hardly better than always the mean, so {output} is not written; "
            "give more rows, or with prompts that say more"
        )
    write_output(output, encode_model(verdict.candidate), "--output")
    typer.echo(f"\nwrote {output}; serve with it by predictor.path in the settings")


def _judge(rows: TrainingRows, seed: int) -> Verdict:
    import os

    import numpy as np

    from tdpipe.prediction.training import judge

    # By chance, because nothing says that a file is in the order of time.
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = len(rows) // _JUDGES
    newer, older = rows.at(order[:cut]), rows.at(order[cut:])
    return judge(older, newer, None, threads=len(os.sched_getaffinity(0)))


def _table(verdict: Verdict) -> str:
    names = {"candidate": "predictor", "mean": "always the mean"}
    sums = [count for count in _SUMS if count <= verdict.judged]
    header = ["", "pinball loss, tokens", *(f"error of the sum of {count}" for count in sums)]
    lines = [
        f"trained on {verdict.trained} rows, judged by {verdict.judged} held-out ones",
        "",
        f"|{' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for choice, score in verdict.scores.items():
        errors = " | ".join(f"{score.sum_error(count):.1%}" for count in sums)
        lines.append(f"| {names[choice]} | {score.pinball:.1f} | {errors} |")
    return "\n".join(lines)
