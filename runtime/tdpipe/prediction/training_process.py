"""Training in a process of its own, at the lowest priority: `python -m tdpipe.prediction.training_process`.

It reads arrays from standard input, writes arrays to standard output, and knows nothing of the engine. CatBoost and
what that imports stay out of the engine's process.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import astuple
from typing import TYPE_CHECKING, cast

import numpy as np

from tdpipe.prediction.model_file import decode_model, encode_model
from tdpipe.prediction.score import Score
from tdpipe.prediction.training import TrainingFailedError, judge
from tdpipe.prediction.training_rows import TrainingRows
from tdpipe.prediction.verdict import Choice, Verdict

if TYPE_CHECKING:
    from tdpipe.prediction.length_model import LengthModel

_LOWEST_PRIORITY = 19
_JUDGES = 5
"""One in so many rows judges: the newest."""
_MOST_TOLD = 500
"""Characters of a failed process's last words."""


class TrainingProcess:
    """A `Trainer` that starts a process for each training."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Verdict:
        """See `Trainer.train`.

        Raises:
            TrainingFailedError: the process failed, or was stopped.
        """
        # In a session of its own, a Ctrl-C on the terminal does not reach it.
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "tdpipe.prediction.training_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise TrainingFailedError(f"no process can be started: {error}") from error
        self._process = process
        if self._stopped:
            process.kill()
        answer, complaint = process.communicate(_encode_task(rows, incumbent))
        self._process = None
        if process.returncode:
            said = complaint.decode(errors="replace").strip()[-_MOST_TOLD:]
            raise TrainingFailedError(said or f"its process ended with {process.returncode}")
        return _decode_verdict(answer)

    def stop(self) -> None:
        """See `Trainer.stop`."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()


def main() -> None:
    """Do the task on standard input."""
    os.nice(_LOWEST_PRIORITY)
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever CatBoost may print
    rows, incumbent = _decode_task(sys.stdin.buffer.read())
    older = len(rows) - len(rows) // _JUDGES
    try:
        verdict = judge(rows.at(slice(older)), rows.at(slice(older, None)), incumbent)
    except TrainingFailedError as error:
        sys.exit(str(error))
    with answer:
        answer.write(_encode_verdict(verdict))


def _encode_task(rows: TrainingRows, incumbent: LengthModel | None) -> bytes:
    stream = io.BytesIO()
    model = b"" if incumbent is None else encode_model(incumbent)
    np.savez(
        stream,
        vectors=rows.vectors,
        lengths=rows.lengths,
        complete=rows.complete,
        bounds=rows.bounds,
        incumbent=np.frombuffer(model, dtype=np.uint8),
    )
    return stream.getvalue()


def _decode_task(task: bytes) -> tuple[TrainingRows, LengthModel | None]:
    with np.load(io.BytesIO(task), allow_pickle=False) as stored:
        rows = TrainingRows(
            stored["vectors"], stored["lengths"], stored["complete"], stored["bounds"]
        )
        model = stored["incumbent"].tobytes()
    return rows, decode_model(model) if model else None


def _encode_verdict(verdict: Verdict) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream,
        choice=np.array(verdict.choice),
        candidate=np.frombuffer(encode_model(verdict.candidate), dtype=np.uint8),
        rivals=np.array(list(verdict.scores)),
        scores=np.array([astuple(each) for each in verdict.scores.values()]),
        rows=np.array([verdict.trained, verdict.judged]),
    )
    return stream.getvalue()


def _decode_verdict(answer: bytes) -> Verdict:
    with np.load(io.BytesIO(answer), allow_pickle=False) as stored:
        scores = {
            cast("Choice", name): Score(*figures)
            for name, figures in zip(
                stored["rivals"].tolist(), stored["scores"].tolist(), strict=True
            )
        }
        trained, judged = stored["rows"].tolist()
        choice = cast("Choice", str(stored["choice"]))
        return Verdict(choice, decode_model(stored["candidate"].tobytes()), scores, trained, judged)


if __name__ == "__main__":
    main()
