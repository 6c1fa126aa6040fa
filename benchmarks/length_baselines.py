"""Predictors of output lengths that are compared with tdpipe's own.

All are trained on the same rows. The oracle and the mean bound what any predictor can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from catboost import CatBoostClassifier, CatBoostRegressor

from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.length_model import clip_lengths
from tdpipe.prediction.training import predict_mean

if TYPE_CHECKING:
    from tdpipe.prediction.length_model import OutcomeRows
    from tdpipe.prediction.training_rows import LengthArray, TrainingRows


Predictor = Callable[["TrainingRows"], "OutcomeRows"]
"""Function from rows, whose lengths only the oracle reads, to [n, outcomes] predicted lengths."""

_CLASS_PERCENTILES = (25, 50, 75, 99)
"""Percentiles of the output length that separate the five classes of TD-Pipe's predictor."""
_QUANTILES = 16
_CATBOOST_PARAMETERS: dict[str, Any] = {
    "iterations": 200,
    "learning_rate": 0.1,
    "depth": 6,
    "random_seed": 0,
    "verbose": False,
    "allow_writing_files": False,
}


def mean_predictor(training: TrainingRows) -> Predictor:
    """Return a predictor that gives the distribution of all training lengths to every request."""
    return lambda rows: predict_mean(training, rows)


def oracle(rows: TrainingRows) -> OutcomeRows:
    """Predict the actual lengths."""
    return clip_lengths(rows.lengths[:, None], rows.max_tokens)


class FiveClasses:
    """TD-Pipe's predictor with trees instead of BERT: predicts a length class and uses the mean length of the class."""

    def __init__(self, training: TrainingRows) -> None:
        self._edges = np.percentile(training.lengths, _CLASS_PERCENTILES)
        classes = self._classes(training)
        self._means = np.array(
            [
                training.lengths[classes == number].mean() if (classes == number).any() else np.inf
                for number in range(len(_CLASS_PERCENTILES) + 1)
            ]
        )
        self._model = CatBoostClassifier(loss_function="MultiClass", **_CATBOOST_PARAMETERS)
        self._model.fit(training.vectors, classes)

    def __call__(self, rows: TrainingRows) -> OutcomeRows:
        """Predict one length for each request."""
        return clip_lengths(self._means[self._predict(rows)][:, None], rows.max_tokens)

    def accuracy(self, rows: TrainingRows) -> float:
        """Return the share of requests whose class is predicted correctly."""
        return float((self._predict(rows) == self._classes(rows)).mean())

    def _classes(self, rows: TrainingRows) -> LengthArray:
        return np.searchsorted(self._edges, rows.lengths)

    def _predict(self, rows: TrainingRows) -> LengthArray:
        classes: LengthArray = self._model.predict(rows.vectors).ravel().astype(np.int64)
        return classes


class LogQuantiles:
    """Quantiles of the length's logarithm, all from one set of trees (CatBoost's MultiQuantile loss)."""

    def __init__(self, training: TrainingRows) -> None:
        self._levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        alpha = ",".join(f"{level:.5f}" for level in self._levels)
        loss = f"MultiQuantile:alpha={alpha}"
        self._model = CatBoostRegressor(loss_function=loss, **_CATBOOST_PARAMETERS)
        self._model.fit(training.vectors, np.log(training.lengths))

    def __call__(self, rows: TrainingRows) -> OutcomeRows:
        """Predict equally likely lengths, interpolated between the quantiles."""
        quantiles = np.sort(self._model.predict(rows.vectors), axis=1)
        levels = (np.arange(OUTCOMES) + 0.5) / OUTCOMES
        logarithms = np.stack([np.interp(levels, self._levels, each) for each in quantiles])
        return clip_lengths(np.exp(logarithms), rows.max_tokens)
