from __future__ import annotations

from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.survival_predictor import SurvivalPredictor


def request(max_tokens: int, *, can_stop: bool = True) -> PromptFeatures:
    return PromptFeatures(10, max_tokens, can_stop=can_stop)


def test_before_any_request_finished_the_prediction_is_max_tokens() -> None:
    assert set(SurvivalPredictor().predict(request(77)).outcomes) == {77}


def test_predictions_follow_the_lengths_of_finished_requests() -> None:
    predictor = SurvivalPredictor()
    for length in (10, 20, 30, 40) * 4:
        predictor.observe(request(1000), length, complete=True)
    outcomes = predictor.predict(request(1000)).outcomes
    assert [outcomes.count(length) for length in (10, 20, 30, 40)] == [8, 8, 8, 8]


def test_a_request_cut_off_by_max_tokens_counts_as_longer() -> None:
    predictor = SurvivalPredictor()
    for _ in range(8):
        predictor.observe(request(50), 10, complete=True)
        predictor.observe(request(50), 50, complete=False)
    outcomes = predictor.predict(request(200)).outcomes
    assert outcomes.count(10) == 16
    assert outcomes.count(200) == 16


def test_no_prediction_exceeds_max_tokens() -> None:
    predictor = SurvivalPredictor()
    for _ in range(8):
        predictor.observe(request(1000), 500, complete=True)
    assert set(predictor.predict(request(60)).outcomes) == {60}


def test_a_request_that_cannot_stop_is_certain_and_is_not_learned_from() -> None:
    predictor = SurvivalPredictor()
    for _ in range(64):
        predictor.observe(request(100, can_stop=False), 100, complete=False)
    assert predictor.version == 0
    for _ in range(8):
        predictor.observe(request(1000), 5, complete=True)
    assert predictor.predict(request(900, can_stop=False)).outcomes == (900,)
    assert set(predictor.predict(request(900)).outcomes) == {5}


def test_the_version_grows_with_each_doubling_of_the_finished_requests() -> None:
    predictor = SurvivalPredictor()
    versions = []
    for _ in range(64):
        predictor.observe(request(1000), 5, complete=True)
        versions.append(predictor.version)
    assert versions[6] == 0
    assert versions[7] == 1
    assert versions[-1] == 4
