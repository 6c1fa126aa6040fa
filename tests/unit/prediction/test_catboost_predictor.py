from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.catboost_predictor import CatBoostPredictor
from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.input_vector import INPUTS
from tdpipe.prediction.length_model import LengthModel
from tdpipe.prediction.score import Score
from tdpipe.prediction.training import TrainingFailedError
from tdpipe.prediction.tree_ensemble import TreeEnsemble
from tdpipe.prediction.verdict import Choice, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tdpipe.prediction.training_rows import TrainingRows

ROWS = 64


def always(length: int) -> LengthModel:
    """A model that expects the same of all."""
    trees = TreeEnsemble(
        np.zeros((1, 1), dtype=np.int32),
        np.full((1, 1), np.inf, dtype=np.float32),
        np.zeros((1, 2), dtype=np.float32),
        length**0.5,
    )
    return LengthModel(trees, np.zeros(0), np.ones((1, OUTCOMES), dtype=np.float32))


class Scripted:
    """A trainer that waits to be let go, and then gives the next verdict."""

    def __init__(self, *choices: Choice | None) -> None:
        self.choices = list(choices)
        self.learned: list[TrainingRows] = []
        self.incumbents: list[LengthModel | None] = []
        self.go = threading.Semaphore(0)
        self.model = always(7)

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Verdict:
        self.learned.append(rows)
        self.incumbents.append(incumbent)
        self.go.acquire()
        choice = self.choices.pop(0) if self.choices else None
        if choice is None:
            raise TrainingFailedError("scripted")
        scores = {choice: Score(1.0, 0.0, 1.0, 10.0)}
        return Verdict(choice, self.model, scores, len(rows), 1)

    def stop(self) -> None:
        self.go.release()


def asking(
    bound: int = 1000, *, can_stop: bool = True, tenant: str | None = None
) -> PromptFeatures:
    return PromptFeatures(10, bound, can_stop=can_stop, tenant=tenant)


def see(predictor: CatBoostPredictor, count: int) -> None:
    for _ in range(count):
        predictor.observe(asking(), 50, complete=True)


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError("did not come about")


def expected(predictor: CatBoostPredictor) -> set[int]:
    return set(predictor.predict(asking()).outcomes)


def test_while_training_runs_requests_are_predicted_and_observed_as_before() -> None:
    trainer = Scripted("candidate")
    predictor = CatBoostPredictor(None, trainer, ROWS)
    see(predictor, 10 * ROWS)
    assert expected(predictor) == {50}
    assert len(trainer.learned) == 1
    version = predictor.version
    trainer.go.release()
    eventually(lambda: predictor.version > version)
    assert expected(predictor) == {7}
    predictor.close()


def test_a_model_that_is_no_better_is_not_taken() -> None:
    trainer = Scripted("incumbent", "mean", "candidate")
    model = always(20)
    predictor = CatBoostPredictor(model, trainer, ROWS)
    version = predictor.version
    see(predictor, ROWS)
    trainer.go.release()
    eventually(lambda: len(trainer.choices) == 2)
    assert expected(predictor) == {20}
    assert predictor.version == version

    # The model has become worse than the mean of what finished.
    eventually(lambda: (see(predictor, 1), len(trainer.learned) == 2)[1])
    assert trainer.incumbents == [model, model]
    trainer.go.release()
    eventually(lambda: predictor.version > version)
    assert expected(predictor) == {50}
    predictor.close()


def test_a_training_that_fails_changes_nothing_and_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = Scripted(None, "candidate")
    predictor = CatBoostPredictor(None, trainer, ROWS)
    see(predictor, ROWS)
    trainer.go.release()
    eventually(lambda: "training failed: scripted" in caplog.text)
    assert expected(predictor) == {50}
    eventually(lambda: (see(predictor, 1), len(trainer.learned) == 2)[1])
    trainer.go.release()
    eventually(lambda: expected(predictor) == {7})
    predictor.close()


def test_closing_ends_a_training_that_runs() -> None:
    predictor = CatBoostPredictor(None, Scripted(), ROWS)
    see(predictor, ROWS)
    predictor.close()
    predictor.close()
    assert not [each for each in threading.enumerate() if each.name == "training"]


def test_what_is_trained_on_is_what_was_observed() -> None:
    trainer = Scripted("candidate")
    predictor = CatBoostPredictor(None, trainer, ROWS)
    predictor.observe(asking(), 0, complete=False)
    predictor.observe(asking(can_stop=False), 30, complete=False)
    for number in range(ROWS):
        bound = 100 + number
        predictor.observe(asking(bound, tenant="ada"), 5 + number, complete=number % 2 == 0)
    eventually(lambda: len(trainer.learned) == 1)
    (rows,) = trainer.learned
    assert rows.lengths.tolist() == [5 + number for number in range(ROWS)]
    assert rows.bounds.tolist() == [100 + number for number in range(ROWS)]
    assert rows.complete.tolist() == [number % 2 == 0 for number in range(ROWS)]
    # Each knows of those before it.
    assert rows.vectors[:, INPUTS.index("tenant_outputs")].tolist() == list(range(ROWS))
    predictor.close()


def test_no_prediction_exceeds_the_bound_and_what_cannot_stop_reaches_it() -> None:
    predictor = CatBoostPredictor(always(20))
    assert set(predictor.predict(asking(5)).outcomes) == {5}
    assert predictor.predict(asking(5000, can_stop=False)).outcomes == (5000,)


def test_with_a_model_the_survival_curve_gives_no_reason_to_predict_anew() -> None:
    predictor = CatBoostPredictor(always(20))
    see(predictor, 1000)
    assert predictor.version == 0
