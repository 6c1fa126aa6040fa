from __future__ import annotations

import numpy as np
import pytest
from benchmarks.length_baselines import mean_predictor, oracle
from benchmarks.length_prediction import cost_table, demo_rows, error_table, evaluate
from examples.demo_model.tasks import Split


def test_an_oracle_makes_no_error_and_the_mean_does() -> None:
    _, training = demo_rows(300, Split.TRAIN, 64, seed=0)
    _, held_out = demo_rows(300, Split.HELD_OUT, 64, seed=0)
    best, mean = (evaluate(each, held_out, 0) for each in (oracle, mean_predictor(training)))
    assert best.sums == best.forecast == pytest.approx((0.0,) * 3)
    assert min(mean.sums) > 0.01
    assert min(mean.forecast) > 0.01
    lines = error_table({"oracle": best, "always the mean": mean}).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| oracle", "| always the mean"]


def test_rows_have_max_tokens_and_lengths_within_it() -> None:
    features, rows = demo_rows(100, Split.TRAIN, 16, seed=1)
    assert {each.max_tokens for each in features} == set(rows.max_tokens.tolist()) == {16}
    assert np.array_equal(rows.complete, rows.lengths < 16)


def test_costs_add_up_to_a_share_of_the_run() -> None:
    table = cost_table({"reading": (80.0, 90.0), "predicting": (20.0, 30.0)})
    assert "| predicting | 20 | 30 |" in table
    # 100 us of the 415 / 2,370 s per request.
    assert "Together 0.057% of" in table
