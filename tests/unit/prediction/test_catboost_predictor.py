from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.catboost_predictor import CatBoostPredictor
from tdpipe.prediction.evaluation import Choice, Evaluation, Score
from tdpipe.prediction.features import FEATURE_NAMES, PromptFeatures
from tdpipe.prediction.length_model import LengthModel
from tdpipe.prediction.training import TrainingFailedError
from tdpipe.prediction.tree_ensemble import TreeEnsemble

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tdpipe.prediction.training_rows import TrainingRows

ROWS = 64


def constant_model(length: int) -> LengthModel:
    """A model that predicts the same length for every request."""
    trees = TreeEnsemble(
        np.zeros((1, 1), dtype=np.int32),
        np.full((1, 1), np.inf, dtype=np.float32),
        np.zeros((1, 2), dtype=np.float32),
        length**0.5,
    )
    return LengthModel(trees, np.zeros(0), np.ones((1, OUTCOMES), dtype=np.float32))


class ScriptedTrainer:
    """A trainer that waits for a permit and then returns an evaluation with the next choice."""

    def __init__(self, *choices: Choice | None) -> None:
        self.choices = list(choices)
        self.trained_on: list[TrainingRows] = []
        self.incumbents: list[LengthModel | None] = []
        self.permits = threading.Semaphore(0)
        self.model = constant_model(7)

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Evaluation:
        self.trained_on.append(rows)
        self.incumbents.append(incumbent)
        self.permits.acquire()
        choice = self.choices.pop(0) if self.choices else None
        if choice is None:
            raise TrainingFailedError("scripted")
        scores = {choice: Score(1.0, 0.0, 1.0, 10.0)}
        return Evaluation(choice, self.model, scores, len(rows), 1)

    def stop(self) -> None:
        self.permits.release()


def request(
    max_tokens: int = 1000, *, can_stop: bool = True, tenant: str | None = None
) -> PromptFeatures:
    return PromptFeatures(10, max_tokens, can_stop=can_stop, tenant=tenant)


def observe(predictor: CatBoostPredictor, count: int) -> None:
    for _ in range(count):
        predictor.observe(request(), 50, complete=True)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("the condition did not become true in time")


def observe_until_training(
    predictor: CatBoostPredictor, trainer: ScriptedTrainer, trainings: int
) -> None:
    def observed() -> bool:
        observe(predictor, 1)
        return len(trainer.trained_on) == trainings

    wait_until(observed)


def predicted(predictor: CatBoostPredictor) -> set[int]:
    return set(predictor.predict(request()).outcomes)


def test_predictions_and_observations_continue_while_training_runs() -> None:
    trainer = ScriptedTrainer("candidate")
    predictor = CatBoostPredictor(None, trainer, ROWS)
    observe(predictor, 10 * ROWS)
    assert predicted(predictor) == {50}
    assert len(trainer.trained_on) == 1
    version = predictor.version
    trainer.permits.release()
    wait_until(lambda: predictor.version > version)
    assert predicted(predictor) == {7}
    predictor.close()


def test_a_model_that_is_not_better_is_not_used() -> None:
    trainer = ScriptedTrainer("incumbent", "mean", "candidate")
    model = constant_model(20)
    predictor = CatBoostPredictor(model, trainer, ROWS)
    version = predictor.version
    observe(predictor, ROWS)
    trainer.permits.release()
    wait_until(lambda: len(trainer.choices) == 2)
    assert predicted(predictor) == {20}
    assert predictor.version == version

    # The model is now worse than the mean of the finished requests.
    observe_until_training(predictor, trainer, 2)
    assert trainer.incumbents == [model, model]
    trainer.permits.release()
    wait_until(lambda: predictor.version > version)
    assert predicted(predictor) == {50}
    predictor.close()


def test_a_failed_training_changes_nothing_and_is_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = ScriptedTrainer(None, "candidate")
    predictor = CatBoostPredictor(None, trainer, ROWS)
    observe(predictor, ROWS)
    trainer.permits.release()
    wait_until(lambda: "training failed: scripted" in caplog.text)
    assert predicted(predictor) == {50}
    observe_until_training(predictor, trainer, 2)
    trainer.permits.release()
    wait_until(lambda: predicted(predictor) == {7})
    predictor.close()


def test_close_stops_a_running_training() -> None:
    predictor = CatBoostPredictor(None, ScriptedTrainer(), ROWS)
    observe(predictor, ROWS)
    predictor.close()
    predictor.close()
    assert not [each for each in threading.enumerate() if each.name == "training"]


def test_training_rows_are_the_observed_requests() -> None:
    trainer = ScriptedTrainer("candidate")
    predictor = CatBoostPredictor(None, trainer, ROWS)
    predictor.observe(request(), 0, complete=False)
    predictor.observe(request(can_stop=False), 30, complete=False)
    for number in range(ROWS):
        max_tokens = 100 + number
        predictor.observe(request(max_tokens, tenant="ada"), 5 + number, complete=number % 2 == 0)
    wait_until(lambda: len(trainer.trained_on) == 1)
    (rows,) = trainer.trained_on
    assert rows.lengths.tolist() == [5 + number for number in range(ROWS)]
    assert rows.max_tokens.tolist() == [100 + number for number in range(ROWS)]
    assert rows.complete.tolist() == [number % 2 == 0 for number in range(ROWS)]
    # Each row counts the outputs before it.
    assert rows.vectors[:, FEATURE_NAMES.index("tenant_outputs")].tolist() == list(range(ROWS))
    predictor.close()


def test_no_prediction_exceeds_max_tokens_and_a_request_that_cannot_stop_reaches_it() -> None:
    predictor = CatBoostPredictor(constant_model(20))
    assert set(predictor.predict(request(5)).outcomes) == {5}
    assert predictor.predict(request(5000, can_stop=False)).outcomes == (5000,)


def test_the_survival_curve_does_not_change_the_version_while_there_is_a_model() -> None:
    predictor = CatBoostPredictor(constant_model(20))
    observe(predictor, 1000)
    assert predictor.version == 0
