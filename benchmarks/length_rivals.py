"""Ways to predict output lengths, trained on the same rows: ours, what others do, and the bounds of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from catboost import CatBoostClassifier, CatBoostRegressor

from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.length_model import bounded
from tdpipe.prediction.survival_curve import survival_curve
from tdpipe.prediction.training import train

if TYPE_CHECKING:
    from tdpipe.prediction.length_model import LengthModel, OutcomeRows
    from tdpipe.prediction.training_rows import TrainingRows


Prediction = Callable[["TrainingRows"], "OutcomeRows"]

_PERCENTILES = (25, 50, 75, 99)
"""Between the classes of TD-Pipe's predictor."""
_QUANTILES = 16
_BOOSTING = {
    "iterations": 200,
    "learning_rate": 0.1,
    "depth": 6,
    "random_seed": 0,
    "verbose": False,
    "allow_writing_files": False,
}


def always_the_mean(rows: TrainingRows) -> Prediction:
    """The distribution of all lengths, for every request."""
    slices = survival_curve(rows.lengths.astype(np.float64), rows.complete).slices(OUTCOMES)
    return lambda asked: bounded(np.tile(slices, (len(asked), 1)), asked.bounds)


def oracle(asked: TrainingRows) -> OutcomeRows:
    """The lengths themselves."""
    return bounded(asked.lengths[:, None], asked.bounds)


class FiveClasses:
    """TD-Pipe's predictor with trees in place of BERT: a class of length is guessed, and its mean length told."""

    def __init__(self, rows: TrainingRows) -> None:
        self._edges = np.percentile(rows.lengths, _PERCENTILES)
        classes = self._classes(rows)
        self._means = np.array(
            [
                rows.lengths[classes == each].mean() if (classes == each).any() else np.inf
                for each in range(len(_PERCENTILES) + 1)
            ]
        )
        self._model = CatBoostClassifier(loss_function="MultiClass", **_BOOSTING)
        self._model.fit(rows.vectors, classes)

    def __call__(self, asked: TrainingRows) -> OutcomeRows:
        """One length for each request."""
        return bounded(self._means[self._guess(asked)][:, None], asked.bounds)

    def accuracy(self, asked: TrainingRows) -> float:
        """Share of the requests whose class it names."""
        return float((self._guess(asked) == self._classes(asked)).mean())

    def _classes(self, rows: TrainingRows) -> np.ndarray:
        return np.searchsorted(self._edges, rows.lengths)

    def _guess(self, asked: TrainingRows) -> np.ndarray:
        guesses: np.ndarray = self._model.predict(asked.vectors).ravel().astype(np.int64)
        return guesses


class LogQuantiles:
    """Quantiles of the length's logarithm, one set of trees for all (CatBoost's MultiQuantile)."""

    def __init__(self, rows: TrainingRows) -> None:
        self._levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        alpha = ",".join(f"{level:.5f}" for level in self._levels)
        self._model = CatBoostRegressor(loss_function=f"MultiQuantile:alpha={alpha}", **_BOOSTING)
        self._model.fit(rows.vectors, np.log(rows.lengths))

    def __call__(self, asked: TrainingRows) -> OutcomeRows:
        """The quantiles between which others are interpolated."""
        known = np.sort(self._model.predict(asked.vectors), axis=1)
        wanted = (np.arange(OUTCOMES) + 0.5) / OUTCOMES
        logarithms = np.stack([np.interp(wanted, self._levels, each) for each in known])
        return bounded(np.exp(logarithms), asked.bounds)


class Ours:
    """What the engine uses."""

    def __init__(self, rows: TrainingRows) -> None:
        self.model: LengthModel = train(rows, threads=-1)

    def __call__(self, asked: TrainingRows) -> OutcomeRows:
        """A distribution for each request."""
        return self.model.outcomes(asked.vectors, asked.bounds)
