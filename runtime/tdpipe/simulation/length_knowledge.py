"""Predicted output lengths of simulated requests: exact, from an emulated classifier, or the same for all.

Traces hold lengths without texts, so no predictor can be trained on them. Instead, a classifier of published quality is
emulated: it finds the right one of five classes at the published rate, and is off by one or two classes otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np

from tdpipe.core.errors import SettingsError
from tdpipe.core.lengths import OUTCOMES, LengthDistribution

if TYPE_CHECKING:
    from collections.abc import Sequence

Knowledge = Literal["oracle", "classifier", "mean"]
_CLASS_PERCENTILES = (25, 50, 75, 99)
"""Percentiles of the output length that separate the classes of TD-Pipe's predictor."""
ACCURACY = 0.546
"""Share of right classes of that predictor for the answers of Llama-2-13B."""
_OFF_BY_TWO_SHARE = 0.25
"""Share of the wrong classes that are off by two; it gives the published mean error of 0.57 classes."""


def parse_knowledge(text: str) -> Knowledge:
    """Return the kind of knowledge of that name.

    Raises:
        SettingsError: There is no such kind.
    """
    if text not in get_args(Knowledge):
        known = ", ".join(get_args(Knowledge))
        raise SettingsError("--lengths", f"{text!r} is unknown", f"give one of {known}")
    return cast("Knowledge", text)


def predictions(
    outputs: Sequence[int], population: Sequence[int], knowledge: Knowledge, seed: int
) -> list[LengthDistribution]:
    """Predict the length of each output.

    Args:
        outputs: The true lengths.
        population: The lengths that define classes and distributions, in place of a training set.
        knowledge: `oracle` predicts the true length, `mean` the same distribution for every output, and `classifier`
            the distribution of a class that is right with probability `ACCURACY`.
        seed: The seed of the classifier's errors.
    """
    if knowledge == "oracle":
        return [LengthDistribution((length,)) for length in outputs]
    known = np.sort(np.asarray(population))
    if knowledge == "mean":
        return [_quantiles(known)] * len(outputs)
    random = np.random.default_rng(seed)
    edges = np.percentile(known, _CLASS_PERCENTILES)
    guessed = _guess(np.searchsorted(edges, known), random)
    predicted = {each: _quantiles(known[guessed == each]) for each in np.unique(guessed).tolist()}
    guesses = _guess(np.searchsorted(edges, np.asarray(outputs)), random)
    nearest = sorted(predicted)
    return [predicted[min(nearest, key=lambda c: abs(c - each))] for each in guesses.tolist()]


def _guess(
    classes: np.ndarray[tuple[int], np.dtype[np.int64]], random: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the classifier's class of each output: right, or off by one or two.

    It never chooses the topmost class, which only one output in a hundred belongs to.
    """
    wrong = random.random(len(classes)) >= ACCURACY
    distance = 1 + (random.random(len(classes)) < _OFF_BY_TWO_SHARE)
    sign = np.where(random.random(len(classes)) < 0.5, -1, 1)
    top = len(_CLASS_PERCENTILES) - 1
    # A class beyond either end is mirrored to the other side.
    target = classes + sign * distance
    target = np.where((target < 0) | (target > top), classes - sign * distance, target)
    return np.clip(np.where(wrong, target, classes), 0, top)


def _quantiles(
    ascending: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> LengthDistribution:
    ranks = (np.arange(OUTCOMES) + 0.5) / OUTCOMES
    return LengthDistribution(tuple(int(each) for each in np.quantile(ascending, ranks)))
