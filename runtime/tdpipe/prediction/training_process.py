"""Training in a separate process at the lowest priority: `python -m tdpipe.prediction.training_process`.

The process reads arrays from standard input and writes arrays to standard output. The engine's process never imports
CatBoost and its dependencies.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import astuple
from typing import TYPE_CHECKING, cast

import numpy as np

from tdpipe.prediction.evaluation import Choice, Evaluation, Score
from tdpipe.prediction.model_file import decode_model, encode_model
from tdpipe.prediction.training import HELD_OUT_DIVISOR, TrainingFailedError, train_and_evaluate
from tdpipe.prediction.training_rows import TrainingRows

if TYPE_CHECKING:
    from tdpipe.prediction.length_model import LengthModel

_LOWEST_PRIORITY = 19
_MAX_ERROR_CHARACTERS = 500
"""Number of characters at the end of a failed process's error output that go into the error message."""


class TrainingProcess:
    """A `Trainer` that starts a new process for each training."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Evaluation:
        """See `Trainer.train`.

        Raises:
            TrainingFailedError: The process failed or was stopped.
        """
        # A new session, so that a Ctrl-C on the terminal does not reach the process.
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "tdpipe.prediction.training_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise TrainingFailedError(f"cannot start a process: {error}") from error
        self._process = process
        if self._stopped:
            process.kill()
        answer, error_output = process.communicate(_encode_task(rows, incumbent))
        self._process = None
        if process.returncode:
            message = error_output.decode(errors="replace").strip()[-_MAX_ERROR_CHARACTERS:]
            raise TrainingFailedError(
                message or f"the process ended with exit code {process.returncode}"
            )
        return _decode_evaluation(answer)

    def stop(self) -> None:
        """See `Trainer.stop`."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()


def main() -> None:
    """Train on the rows from standard input and write the evaluation to standard output."""
    os.nice(_LOWEST_PRIORITY)
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # CatBoost may print, which must not mix with the answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    rows, incumbent = _decode_task(sys.stdin.buffer.read())
    split = len(rows) - len(rows) // HELD_OUT_DIVISOR
    training, held_out = rows.select(slice(split)), rows.select(slice(split, None))
    try:
        evaluation = train_and_evaluate(training, held_out, incumbent)
    except TrainingFailedError as error:
        sys.exit(str(error))
    with answer:
        answer.write(_encode_evaluation(evaluation))


def _encode_task(rows: TrainingRows, incumbent: LengthModel | None) -> bytes:
    stream = io.BytesIO()
    model = b"" if incumbent is None else encode_model(incumbent)
    np.savez(
        stream,
        vectors=rows.vectors,
        lengths=rows.lengths,
        complete=rows.complete,
        max_tokens=rows.max_tokens,
        incumbent=np.frombuffer(model, dtype=np.uint8),
    )
    return stream.getvalue()


def _decode_task(task: bytes) -> tuple[TrainingRows, LengthModel | None]:
    with np.load(io.BytesIO(task), allow_pickle=False) as stored:
        rows = TrainingRows(
            stored["vectors"], stored["lengths"], stored["complete"], stored["max_tokens"]
        )
        model = stored["incumbent"].tobytes()
    return rows, decode_model(model) if model else None


def _encode_evaluation(evaluation: Evaluation) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream,
        choice=np.array(evaluation.choice),
        candidate=np.frombuffer(encode_model(evaluation.candidate), dtype=np.uint8),
        choices=np.array(list(evaluation.scores)),
        scores=np.array([astuple(each) for each in evaluation.scores.values()]),
        rows=np.array([evaluation.training_rows, evaluation.held_out_rows]),
    )
    return stream.getvalue()


def _decode_evaluation(answer: bytes) -> Evaluation:
    with np.load(io.BytesIO(answer), allow_pickle=False) as stored:
        names, errors = stored["choices"].tolist(), stored["scores"].tolist()
        scores = {
            cast("Choice", name): Score(*each) for name, each in zip(names, errors, strict=True)
        }
        choice = cast("Choice", str(stored["choice"]))
        candidate = decode_model(stored["candidate"].tobytes())
        training_rows, held_out_rows = stored["rows"].tolist()
        return Evaluation(choice, candidate, scores, training_rows, held_out_rows)


if __name__ == "__main__":
    main()
