"""Training of a length model on finished requests, and its evaluation against the alternatives.

Cross-validation decides how many trees to train and measures how lengths spread around the predictions. The trees see
an output that was cut off with its expected full length (method of Buckley and James, 1979). The spread is a survival
curve, which handles such outputs itself.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tdpipe.core.errors import TDPipeError
from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.evaluation import Choice, Evaluation, Score, score_outcomes
from tdpipe.prediction.length_model import LengthModel, clip_lengths
from tdpipe.prediction.survival_curve import estimate_survival
from tdpipe.prediction.tree_ensemble import TreeEnsemble, convert_catboost

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

    from tdpipe.core.step import FloatArray
    from tdpipe.prediction.length_model import OutcomeRows
    from tdpipe.prediction.training_rows import LengthArray, TrainingRows
    from tdpipe.prediction.tree_ensemble import FloatRows

HELD_OUT_DIVISOR = 5
"""One row in this many is held out for the evaluation."""
_FOLDS = 4
_MAX_TREES = 400
_CATBOOST_PARAMETERS: dict[str, Any] = {
    "loss_function": "RMSE",
    "learning_rate": 0.08,
    "depth": 6,
    "random_seed": 0,
    "allow_const_label": True,
    "verbose": False,
    "allow_writing_files": False,
}
_MIN_ROWS_PER_BUCKET = 128
_MAX_BUCKETS = 12
_MAX_LOSS_RATIO = 0.98
"""Largest ratio of a model's loss to the mean's at which the model is used; a smaller gain is not worth its cost."""


class TrainingFailedError(TDPipeError):
    """Training produced no model; the message gives the reason."""


def train_and_evaluate(
    training: TrainingRows,
    held_out: TrainingRows,
    incumbent: LengthModel | None,
    threads: int = 1,
) -> Evaluation:
    """Train a model and choose between it, the incumbent and the mean.

    Args:
        training: Rows on which the model is trained.
        held_out: Rows on which the alternatives are evaluated.
        incumbent: Model in use, if there is one.
        threads: Number of threads for CatBoost; -1 uses all cores.

    Raises:
        TrainingFailedError: CatBoost cannot train on the rows, or no held-out row has a known length.
    """
    candidate = train(training, threads)
    known = held_out.select(held_out.length_known)
    if not len(known):
        raise TrainingFailedError("every held-out output was cut off by its client")
    lengths = np.minimum(known.lengths, known.max_tokens)
    models: dict[Choice, LengthModel] = {"candidate": candidate}
    if incumbent is not None:
        models["incumbent"] = incumbent
    scores: dict[Choice, Score] = {
        choice: score_outcomes(model.outcomes(known.vectors, known.max_tokens), lengths)
        for choice, model in models.items()
    }
    scores["mean"] = score_outcomes(predict_mean(training, known), lengths)
    best = min(scores, key=lambda choice: scores[choice].pinball)
    if scores[best].pinball > _MAX_LOSS_RATIO * scores["mean"].pinball:
        best = "mean"
    return Evaluation(best, candidate, scores, len(training), len(known))


def predict_mean(training: TrainingRows, rows: TrainingRows) -> OutcomeRows:
    """Predict the distribution of all training lengths for every row, whatever its features are."""
    curve = estimate_survival(training.lengths.astype(np.float64), training.complete)
    means = curve.quantile_means(OUTCOMES)
    return clip_lengths(np.tile(means, (len(rows), 1)), rows.max_tokens)


def train(rows: TrainingRows, threads: int = 1) -> LengthModel:
    """Train a model.

    Args:
        rows: Rows on which the model is trained.
        threads: Number of threads for CatBoost; -1 uses all cores.

    Raises:
        TrainingFailedError: CatBoost cannot train on the rows.
    """
    folds = np.random.default_rng(0).permutation(len(rows)) % _FOLDS
    lengths = rows.lengths.astype(np.float64)
    expected, size = _cross_validate(rows, lengths, folds, threads)
    if not rows.complete.all():
        lengths = _expected_full_lengths(rows, expected)
        expected, size = _cross_validate(rows, lengths, folds, threads)
    trees = _to_ensemble(_fit(rows.vectors, lengths, size, threads))
    return LengthModel(trees, *_measure_spread(rows, expected))


def _cross_validate(
    rows: TrainingRows, lengths: FloatArray, folds: LengthArray, threads: int
) -> tuple[FloatArray, int]:
    """Return [n] expected lengths, each by trees trained on the other folds, and the best number of trees."""
    errors = np.zeros(_MAX_TREES)
    predictions = []
    for fold in range(_FOLDS):
        held_out = folds == fold
        model = _fit(rows.vectors[~held_out], lengths[~held_out], _MAX_TREES, threads)
        staged = np.stack(list(model.staged_predict(rows.vectors[held_out], thread_count=threads)))
        errors += ((staged - np.sqrt(lengths[held_out])) ** 2).sum(axis=1)
        predictions.append((held_out, staged))
    size = int(errors.argmin()) + 1
    expected = np.empty(len(rows))
    for held_out, staged in predictions:
        expected[held_out] = np.maximum(staged[size - 1], 1.0) ** 2
    return expected, size


def _fit(rows: FloatRows, lengths: FloatArray, trees: int, threads: int) -> CatBoostRegressor:
    from catboost import CatBoostError, CatBoostRegressor

    model = CatBoostRegressor(iterations=trees, thread_count=threads, **_CATBOOST_PARAMETERS)
    try:
        model.fit(rows, np.sqrt(lengths))
    except CatBoostError as error:
        raise TrainingFailedError(str(error).splitlines()[0]) from error
    return model


def _to_ensemble(model: CatBoostRegressor) -> TreeEnsemble:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.json")
        model.save_model(str(file), format="json")
        return convert_catboost(json.loads(file.read_bytes()))


def _expected_full_lengths(rows: TrainingRows, expected: FloatArray) -> FloatArray:
    """Return [n] lengths, with the expected full length for outputs that were cut off."""
    ratios = rows.lengths / expected
    full = estimate_survival(ratios, rows.complete).means_above(ratios)
    return np.where(rows.complete, rows.lengths, expected * full)


def _measure_spread(rows: TrainingRows, expected: FloatArray) -> tuple[FloatArray, FloatRows]:
    """Return bucket edges and bucket spreads of a `LengthModel`."""
    buckets = min(max(len(rows) // _MIN_ROWS_PER_BUCKET, 1), _MAX_BUCKETS)
    edges = np.unique(np.quantile(expected, np.arange(1, buckets) / buckets, method="lower"))
    edges = edges[edges < expected.max()]
    bucket = np.searchsorted(edges, expected)
    ratios = rows.lengths / expected
    curves = [
        estimate_survival(ratios[bucket == number], rows.complete[bucket == number])
        for number in range(len(edges) + 1)
    ]
    spreads = np.stack([curve.quantile_means(OUTCOMES) for curve in curves])
    return edges, spreads.astype(np.float32)
