"""Renewed length predictions for unfinished requests after the predictor has learned more.

A prediction takes about ten microseconds, so renewing a queue of 100,000 requests at once would stop the pipeline for
seconds. A few per step, oldest first, reach each request before it is admitted, which is when its length matters.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tdpipe.prediction.features import PromptFeatures
    from tdpipe.prediction.length_predictor import LengthPredictor
    from tdpipe.scheduling.scheduler import Scheduler

_REVISIONS_PER_STEP = 16


class LengthRevision:
    """Keeps a scheduler's predicted lengths up to date with its predictor.

    Args:
        predictor: The predictor, whose `version` changes when it has learned more.
        scheduler: The scheduler of the requests.
    """

    def __init__(self, predictor: LengthPredictor, scheduler: Scheduler) -> None:
        self._predictor = predictor
        self._scheduler = scheduler
        self._version = predictor.version
        self._outdated: Iterator[tuple[str, PromptFeatures]] = iter(())

    def advance(self, unfinished: Callable[[], Iterable[tuple[str, PromptFeatures]]]) -> None:
        """Revise the next few requests; a new version of the predictor starts again with the oldest request.

        Args:
            unfinished: Returns the ids and features of all requests that have not ended, oldest first.
        """
        if self._predictor.version != self._version:
            self._version = self._predictor.version
            self._outdated = iter(list(unfinished()))
        for request_id, features in islice(self._outdated, _REVISIONS_PER_STEP):
            self._scheduler.revise(request_id, self._predictor.predict(features))
