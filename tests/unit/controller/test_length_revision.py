from __future__ import annotations

from typing import Any

from tdpipe.controller.length_revision import LengthRevision
from tdpipe.core.lengths import LengthDistribution
from tdpipe.prediction.features import PromptFeatures


class Predictor:
    """Predicts its own version."""

    def __init__(self) -> None:
        self.version = 1

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        return LengthDistribution((self.version * features.max_tokens,))

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None: ...

    def close(self) -> None: ...


class Revised:
    """Notes what a scheduler would be told."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.lengths: dict[str, int] = {}

    def revise(self, request_id: str, lengths: LengthDistribution) -> None:
        self.order.append(request_id)
        self.lengths[request_id] = lengths.outcomes[0]


def requests(count: int) -> list[tuple[str, PromptFeatures]]:
    return [(str(number), PromptFeatures(1, number + 1)) for number in range(count)]


def test_nothing_is_revised_before_there_is_more_to_know() -> None:
    scheduler: Any = Revised()
    LengthRevision(Predictor(), scheduler).advance(lambda: requests(5))
    assert scheduler.order == []


def test_a_long_queue_is_revised_oldest_first_over_several_steps() -> None:
    predictor = Predictor()
    scheduler: Any = Revised()
    revision, queue = LengthRevision(predictor, scheduler), requests(1000)
    predictor.version = 2
    revision.advance(lambda: queue)
    first = len(scheduler.order)
    assert 0 < first < 1000
    while len(scheduler.order) < 1000:
        revision.advance(lambda: queue)
    assert scheduler.order == [name for name, _ in queue]
    assert scheduler.lengths["9"] == 20
    revision.advance(lambda: queue)
    assert len(scheduler.order) == 1000


def test_a_newer_version_starts_with_the_oldest_again() -> None:
    predictor = Predictor()
    scheduler: Any = Revised()
    revision, queue = LengthRevision(predictor, scheduler), requests(1000)
    predictor.version = 2
    revision.advance(lambda: queue)
    predictor.version = 3
    revision.advance(lambda: queue)
    assert scheduler.lengths["0"] == 3
