from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from catboost import CatBoostRegressor

from tdpipe.prediction.tree_ensemble import convert_catboost

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("depth", [1, 6])
def test_values_equal_those_of_catboost(tmp_path: Path, depth: int) -> None:
    random = np.random.default_rng(depth)
    rows = random.normal(size=(700, 8)).astype(np.float32)
    rows[random.random(rows.shape) < 0.1] = np.nan
    target = (
        np.nan_to_num(rows[:, 0]) * 3 + np.isnan(rows[:, 1]) * 5 + rows[:, 2:4].sum(axis=1) ** 2
    )
    model = CatBoostRegressor(
        iterations=60, depth=depth, verbose=False, allow_writing_files=False, random_seed=0
    )
    model.fit(rows, np.nan_to_num(target))
    file = tmp_path / "model.json"
    model.save_model(str(file), format="json")
    trees = convert_catboost(json.loads(file.read_bytes()))
    np.testing.assert_allclose(trees.predict(rows), model.predict(rows), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trees.predict(rows[:1]), model.predict(rows[:1]), rtol=1e-5)
