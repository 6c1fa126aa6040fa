from __future__ import annotations

from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.survival import SurvivalPredictor


def asking(max_tokens: int, *, can_stop: bool = True) -> PromptFeatures:
    return PromptFeatures(10, max_tokens, can_stop=can_stop)


def test_before_anything_finished_a_request_is_expected_to_use_its_bound() -> None:
    assert set(SurvivalPredictor().predict(asking(77)).outcomes) == {77}


def test_predictions_follow_the_lengths_of_finished_requests() -> None:
    predictor = SurvivalPredictor()
    for length in (10, 20, 30, 40) * 4:
        predictor.observe(asking(1000), length, complete=True)
    outcomes = predictor.predict(asking(1000)).outcomes
    assert [outcomes.count(length) for length in (10, 20, 30, 40)] == [8, 8, 8, 8]


def test_a_request_cut_off_by_its_bound_says_only_that_it_is_longer() -> None:
    predictor = SurvivalPredictor()
    for _ in range(8):
        predictor.observe(asking(50), 10, complete=True)
        predictor.observe(asking(50), 50, complete=False)
    outcomes = predictor.predict(asking(200)).outcomes
    assert outcomes.count(10) == 16
    assert outcomes.count(200) == 16


def test_no_prediction_exceeds_the_bound() -> None:
    predictor = SurvivalPredictor()
    for _ in range(8):
        predictor.observe(asking(1000), 500, complete=True)
    assert set(predictor.predict(asking(60)).outcomes) == {60}


def test_what_cannot_stop_is_certain_and_teaches_nothing() -> None:
    predictor = SurvivalPredictor()
    for _ in range(64):
        predictor.observe(asking(100, can_stop=False), 100, complete=False)
    assert predictor.version == 0
    for _ in range(8):
        predictor.observe(asking(1000), 5, complete=True)
    assert predictor.predict(asking(900, can_stop=False)).outcomes == (900,)
    assert set(predictor.predict(asking(900)).outcomes) == {5}


def test_the_version_grows_when_there_is_more_to_know() -> None:
    predictor = SurvivalPredictor()
    versions = []
    for _ in range(64):
        predictor.observe(asking(1000), 5, complete=True)
        versions.append(predictor.version)
    assert versions[6] == 0
    assert versions[7] == 1
    assert versions[-1] == 4
