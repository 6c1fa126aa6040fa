from __future__ import annotations

from tdpipe.prediction.survival import SurvivalPredictor


def test_before_anything_finished_a_request_is_expected_to_use_its_bound() -> None:
    assert set(SurvivalPredictor().predict(10, 77).outcomes) == {77}


def test_predictions_follow_the_lengths_of_finished_requests() -> None:
    predictor = SurvivalPredictor()
    for length in (10, 20, 30, 40) * 4:
        predictor.observe(length, complete=True)
    outcomes = predictor.predict(10, 1000).outcomes
    assert [outcomes.count(length) for length in (10, 20, 30, 40)] == [8, 8, 8, 8]


def test_a_request_cut_off_by_its_bound_says_only_that_it_is_longer() -> None:
    predictor = SurvivalPredictor()
    for _ in range(8):
        predictor.observe(10, complete=True)
        predictor.observe(50, complete=False)
    outcomes = predictor.predict(10, 200).outcomes
    assert outcomes.count(10) == 16
    assert outcomes.count(200) == 16


def test_no_prediction_exceeds_the_bound() -> None:
    predictor = SurvivalPredictor()
    for _ in range(8):
        predictor.observe(500, complete=True)
    assert set(predictor.predict(10, 60).outcomes) == {60}


def test_the_version_grows_when_there_is_more_to_know() -> None:
    predictor = SurvivalPredictor()
    versions = []
    for _ in range(64):
        predictor.observe(5, complete=True)
        versions.append(predictor.version)
    assert versions[6] == 0
    assert versions[7] == 1
    assert versions[-1] == 4
