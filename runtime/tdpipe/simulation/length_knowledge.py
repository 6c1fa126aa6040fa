"""What a scheduler is told of output lengths: all, a classifier's guess, or what is usual.

Traces hold lengths without texts, so no predictor can be trained on them. A classifier of the published quality is
emulated instead: it names the right one of five classes so often, and is else off by one class or two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np

from tdpipe.core.errors import SettingsError
from tdpipe.core.lengths import LengthDistribution

if TYPE_CHECKING:
    from collections.abc import Sequence

Knowledge = Literal["oracle", "classifier", "mean"]
OUTCOMES = 32
_PERCENTILES = (25, 50, 75, 99)
"""Between the classes of output length (TD-Pipe's predictor)."""
ACCURACY = 0.546
"""Of that predictor for Llama-2-13B's answers."""
_OFF_BY_TWO = 0.25
"""Part of the wrong guesses: its mean error was 0.57 classes."""


def parse_knowledge(text: str) -> Knowledge:
    """The knowledge of that name.

    Raises:
        SettingsError: there is none.
    """
    if text not in get_args(Knowledge):
        known = ", ".join(get_args(Knowledge))
        raise SettingsError("--lengths", f"{text!r} is unknown", f"give one of {known}")
    return cast("Knowledge", text)


def predictions(
    outputs: Sequence[int], population: Sequence[int], knowledge: Knowledge, seed: int
) -> list[LengthDistribution]:
    """What is told of each output.

    Args:
        outputs: true lengths.
        population: lengths from which classes and distributions are taken, as from a training set.
        knowledge: `oracle` tells the length, `mean` of each the same distribution.
        seed: of the classifier's errors.
    """
    if knowledge == "oracle":
        return [LengthDistribution((length,)) for length in outputs]
    known = np.sort(np.asarray(population))
    if knowledge == "mean":
        return [_quantiles(known)] * len(outputs)
    random = np.random.default_rng(seed)
    edges = np.percentile(known, _PERCENTILES)
    guessed = _guess(np.searchsorted(edges, known), random)
    told = {each: _quantiles(known[guessed == each]) for each in np.unique(guessed).tolist()}
    guesses = _guess(np.searchsorted(edges, np.asarray(outputs)), random)
    nearest = sorted(told)
    return [told[min(nearest, key=lambda c: abs(c - each))] for each in guesses.tolist()]


def _guess(
    classes: np.ndarray[tuple[int], np.dtype[np.int64]], random: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The classifier's class of each: right, or off by one or two; the topmost, 1 in 100, it never names."""
    wrong = random.random(len(classes)) >= ACCURACY
    distance = 1 + (random.random(len(classes)) < _OFF_BY_TWO)
    sign = np.where(random.random(len(classes)) < 0.5, -1, 1)
    top = len(_PERCENTILES) - 1
    # Beyond the ends it errs to the other side.
    target = classes + sign * distance
    target = np.where((target < 0) | (target > top), classes - sign * distance, target)
    return np.clip(np.where(wrong, target, classes), 0, top)


def _quantiles(
    ascending: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> LengthDistribution:
    ranks = (np.arange(OUTCOMES) + 0.5) / OUTCOMES
    return LengthDistribution(tuple(int(each) for each in np.quantile(ascending, ranks)))
