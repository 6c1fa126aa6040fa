from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tdpipe.prediction.training import TrainingFailedError, judge
from tdpipe.prediction.training_process import TrainingProcess
from tests.unit.prediction.prompts import essays


def test_another_process_comes_to_the_same_verdict() -> None:
    rows = essays(600, seed=1)
    verdict = TrainingProcess().train(rows, None)
    here = judge(rows.at(slice(480)), rows.at(slice(480, None)), None)
    assert verdict.choice == here.choice == "candidate"
    assert verdict.scores == here.scores
    assert (verdict.trained, verdict.judged) == (480, 120)
    again = TrainingProcess().train(
        replace(rows, vectors=rows.vectors[::-1].copy()), here.candidate
    )
    assert set(again.scores) == {"candidate", "incumbent", "mean"}
    asked = essays(50, seed=2)
    assert (
        verdict.candidate.outcomes(asked.vectors, asked.bounds)
        == here.candidate.outcomes(asked.vectors, asked.bounds)
    ).all()


def test_why_training_failed_is_told() -> None:
    rows = essays(600, seed=1)
    with pytest.raises(TrainingFailedError, match="constant"):
        TrainingProcess().train(replace(rows, vectors=np.zeros_like(rows.vectors)), None)


def test_a_process_that_runs_can_be_stopped() -> None:
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
