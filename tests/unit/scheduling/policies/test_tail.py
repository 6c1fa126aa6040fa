"""When work counts as finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.policies.tail import requests_keep_coming
from tdpipe.scheduling.waiting_queue import Load

STAGES = 4


def cost() -> CostModel:
    """Any step takes 10 ms a stage, and reading 1,000 KV tokens 10 ms more."""
    points = np.array([1, 64], dtype=np.int32)
    return CostModel((StageCost(points, np.array([0.01, 0.01]), 1e-5),) * STAGES)


@dataclass
class Work:
    """Eight sequences, of which two share a micro-batch: a round takes 4 * 30 ms, and 100 are to go."""

    now: float
    decoding: int = 8
    context: int = 8_000
    running_left: float = 500.0
    load: Load = field(default_factory=lambda: Load(4, 400.0, 300.0))
    last_arrival: float = 5.0
    stages: int = STAGES
    cost: CostModel = field(default_factory=cost)


def keep_coming(work: Any) -> bool:  # noqa: ANN401 - stands in for a view
    return requests_keep_coming(work)


def test_requests_keep_coming_until_none_has_for_a_quarter_of_the_time_to_go() -> None:
    assert keep_coming(Work(now=5.0 + 2.9))
    assert not keep_coming(Work(now=5.0 + 3.1))


def test_requests_keep_coming_until_something_decodes() -> None:
    assert keep_coming(Work(now=1e6, decoding=0))
