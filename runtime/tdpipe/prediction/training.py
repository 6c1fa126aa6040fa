"""Training a model on finished requests, and judging it beside its rivals.

Folds are predicted by trees that have not seen them: this tells how many trees to grow, and how lengths spread. Outputs
that were cut off are replaced by what outputs of their kind were worth beyond that point (Buckley and James, 1979);
the spread is a survival curve, so it counts them as what they are.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tdpipe.core.errors import TDPipeError
from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.length_model import LengthModel, bounded
from tdpipe.prediction.score import Score, score
from tdpipe.prediction.survival_curve import survival_curve
from tdpipe.prediction.tree_ensemble import TreeEnsemble, read_catboost
from tdpipe.prediction.verdict import Choice, Verdict

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

    from tdpipe.core.step import FloatArray
    from tdpipe.prediction.training_rows import LengthArray, TrainingRows
    from tdpipe.prediction.tree_ensemble import FloatRows

_FOLDS = 4
_TREES = 400
"""At most."""
_PARAMETERS: dict[str, Any] = {
    "loss_function": "RMSE",
    "learning_rate": 0.08,
    "depth": 6,
    "random_seed": 0,
    "allow_const_label": True,
    "verbose": False,
    "allow_writing_files": False,
}
_ROWS_PER_SHAPE = 128
_MOST_SHAPES = 12
_BETTER = 0.98
"""A model's loss must be at most this share of the mean's: less would hardly pay for the trees."""


class TrainingFailedError(TDPipeError):
    """No model came of it; the text says why."""


def judge(
    older: TrainingRows, newer: TrainingRows, incumbent: LengthModel | None, threads: int = 1
) -> Verdict:
    """Train on the older rows, and choose between model, incumbent and mean by the newer ones.

    Raises:
        TrainingFailedError: CatBoost finds nothing to learn from, or no newer row has a known length.
    """
    candidate = train(older, threads)
    known = newer.at(newer.known)
    if not len(known):
        raise TrainingFailedError("every output to judge by was cut off by its client")
    lengths = np.minimum(known.lengths, known.bounds)
    scores: dict[Choice, Score] = {
        "candidate": score(candidate.outcomes(known.vectors, known.bounds), lengths)
    }
    if incumbent is not None:
        scores["incumbent"] = score(incumbent.outcomes(known.vectors, known.bounds), lengths)
    same = survival_curve(older.lengths.astype(np.float64), older.complete).slices(OUTCOMES)
    scores["mean"] = score(bounded(np.tile(same, (len(known), 1)), known.bounds), lengths)
    best = min(scores, key=lambda each: scores[each].pinball)
    if scores[best].pinball > _BETTER * scores["mean"].pinball:
        best = "mean"
    return Verdict(best, candidate, scores, len(older), len(known))


def train(rows: TrainingRows, threads: int = 1) -> LengthModel:
    """A model of the rows.

    Raises:
        TrainingFailedError: CatBoost finds nothing to learn from.
    """
    folds = np.random.default_rng(0).permutation(len(rows)) % _FOLDS
    lengths = rows.lengths.astype(np.float64)
    expected, size = _cross_fit(rows, lengths, folds, threads)
    if not rows.complete.all():
        lengths = _completed(rows, expected)
        expected, size = _cross_fit(rows, lengths, folds, threads)
    trees = _read(_grow(rows.vectors, lengths, size, threads))
    return LengthModel(trees, *_spread(rows, expected))


def _cross_fit(
    rows: TrainingRows, lengths: FloatArray, folds: LengthArray, threads: int
) -> tuple[FloatArray, int]:
    """[n] each row's expected length by trees that were grown on the other folds, and how many trees are best."""
    errors = np.zeros(_TREES)
    grown = []
    for fold in range(_FOLDS):
        out = folds == fold
        model = _grow(rows.vectors[~out], lengths[~out], _TREES, threads)
        guesses = np.stack(list(model.staged_predict(rows.vectors[out], thread_count=threads)))
        errors += ((guesses - np.sqrt(lengths[out])) ** 2).sum(axis=1)
        grown.append((out, guesses))
    size = int(errors.argmin()) + 1
    expected = np.empty(len(rows))
    for out, guesses in grown:
        expected[out] = np.maximum(guesses[size - 1], 1.0) ** 2
    return expected, size


def _grow(rows: FloatRows, lengths: FloatArray, trees: int, threads: int) -> CatBoostRegressor:
    from catboost import CatBoostError, CatBoostRegressor

    model = CatBoostRegressor(iterations=trees, thread_count=threads, **_PARAMETERS)
    try:
        model.fit(rows, np.sqrt(lengths))
    except CatBoostError as error:
        raise TrainingFailedError(str(error).splitlines()[0]) from error
    return model


def _read(model: CatBoostRegressor) -> TreeEnsemble:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.json")
        model.save_model(str(file), format="json")
        return read_catboost(json.loads(file.read_bytes()))


def _completed(rows: TrainingRows, expected: FloatArray) -> FloatArray:
    """[n] lengths, with what is expected of those that were cut off."""
    multiples = rows.lengths / expected
    beyond = survival_curve(multiples, rows.complete).means_beyond(multiples)
    return np.where(rows.complete, rows.lengths, expected * beyond)


def _spread(rows: TrainingRows, expected: FloatArray) -> tuple[FloatArray, FloatRows]:
    """Levels and shapes of a `LengthModel`."""
    shapes = min(max(len(rows) // _ROWS_PER_SHAPE, 1), _MOST_SHAPES)
    levels = np.unique(np.quantile(expected, np.arange(1, shapes) / shapes, method="lower"))
    levels = levels[levels < expected.max()]
    near = np.searchsorted(levels, expected)
    multiples = rows.lengths / expected
    curves = [
        survival_curve(multiples[near == shape], rows.complete[near == shape])
        for shape in range(len(levels) + 1)
    ]
    return levels, np.stack([curve.slices(OUTCOMES) for curve in curves]).astype(np.float32)
