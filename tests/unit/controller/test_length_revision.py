from __future__ import annotations

from typing import Any

from tdpipe.controller.length_revision import LengthRevision
from tdpipe.core.lengths import LengthDistribution
from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.fixed_lengths import FixedLengths


class Predictor(FixedLengths):
    """Predicts a length that depends on its version."""

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        return LengthDistribution((self.version * features.max_tokens,))


class RecordingScheduler:
    """Records the revised lengths in place of a scheduler."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.lengths: dict[str, int] = {}

    def revise(self, request_id: str, lengths: LengthDistribution) -> None:
        self.order.append(request_id)
        self.lengths[request_id] = lengths.outcomes[0]


def requests(count: int) -> list[tuple[str, PromptFeatures]]:
    return [(str(number), PromptFeatures(1, number + 1)) for number in range(count)]


def test_nothing_is_revised_before_the_predictor_has_learned_more() -> None:
    scheduler: Any = RecordingScheduler()
    LengthRevision(Predictor(version=1), scheduler).advance(lambda: requests(5))
    assert scheduler.order == []


def test_a_long_queue_is_revised_oldest_first_over_several_steps() -> None:
    predictor = Predictor(version=1)
    scheduler: Any = RecordingScheduler()
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


def test_a_newer_version_starts_again_with_the_oldest() -> None:
    predictor = Predictor(version=1)
    scheduler: Any = RecordingScheduler()
    revision, queue = LengthRevision(predictor, scheduler), requests(1000)
    predictor.version = 2
    revision.advance(lambda: queue)
    predictor.version = 3
    revision.advance(lambda: queue)
    assert scheduler.lengths["0"] == 3
