from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tdpipe.prediction.training import TrainingFailedError, train_and_evaluate
from tdpipe.prediction.training_process import TrainingProcess
from tests.unit.prediction.prompts import essays


def test_another_process_returns_the_same_evaluation() -> None:
    rows = essays(600, seed=1)
    evaluation = TrainingProcess().train(rows, None)
    here = train_and_evaluate(rows.select(slice(480)), rows.select(slice(480, None)), None)
    assert evaluation.choice == here.choice == "candidate"
    assert evaluation.scores == here.scores
    assert (evaluation.training_rows, evaluation.held_out_rows) == (480, 120)
    again = TrainingProcess().train(
        replace(rows, vectors=rows.vectors[::-1].copy()), here.candidate
    )
    assert set(again.scores) == {"candidate", "incumbent", "mean"}
    asked = essays(50, seed=2)
    assert (
        evaluation.candidate.outcomes(asked.vectors, asked.max_tokens)
        == here.candidate.outcomes(asked.vectors, asked.max_tokens)
    ).all()


def test_the_reason_of_a_failed_training_is_reported() -> None:
    rows = essays(600, seed=1)
    with pytest.raises(TrainingFailedError, match="constant"):
        TrainingProcess().train(replace(rows, vectors=np.zeros_like(rows.vectors)), None)


def test_a_running_process_can_be_stopped() -> None:
    process = TrainingProcess()
    failures: list[TrainingFailedError] = []

    def train() -> None:
        try:
            process.train(essays(20_000, seed=1), None)
        except TrainingFailedError as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    time.sleep(0.5)
    process.stop()
    thread.join(60)
    assert len(failures) == 1
    with pytest.raises(TrainingFailedError):
        process.train(essays(600, seed=1), None)
