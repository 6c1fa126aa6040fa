"""The places of stages on workers, over tables of nodes instead of a Ray."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import ray

from tdpipe.core.attempt import Attempt
from tdpipe.core.errors import (
    PipelineError,
    SettingsError,
    WorkersChangedError,
    WorkersMissingError,
)
from tdpipe.core.settings import ClusterSettings
from tdpipe.pipeline.ray import worker_places
from tdpipe.pipeline.ray.deadline import Deadline
from tdpipe.pipeline.ray.worker_places import WorkerPlaces
from tests.unit.pipeline.test_membership import HEAD, workers

if TYPE_CHECKING:
    from typing import Literal

    from tdpipe.pipeline.ray.places import Places


class Head:
    ended = False

    def failure(self) -> PipelineError:
        return PipelineError("Ray ended with status 1")


class Cluster:
    """Ray's table, and which raylets answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.answers = True
        self.head = Head()
        monkeypatch.setattr(ray, "nodes", lambda: [HEAD, *self.nodes])
        monkeypatch.setattr(worker_places, "raylet_answers", lambda *_: self.answers)
        monkeypatch.setattr(worker_places, "_POLL_SECONDS", 0.01)
        monkeypatch.setattr(worker_places, "_CHECK_SECONDS", 0.0)

    def places(
        self,
        stages: int = 4,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        epoch: int = 1,
    ) -> WorkerPlaces:
        settings = ClusterSettings(stages_per_worker=2, epoch=epoch)
        connection: Any = object()
        head: Any = self.head
        return WorkerPlaces(settings, stages, device, threads, connection, head, ExitStack())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def find(places: WorkerPlaces, seconds: float = 5.0) -> Places:
    deadline = Deadline(seconds, threading.Event())
    return places.find(deadline, lambda _: None, ExitStack())


def test_neighbours_share_a_worker_and_its_cpus(cluster: Cluster) -> None:
    cluster.nodes = workers(3, 0, 1)
    found = find(cluster.places(stages=3))
    assert found.attempt == Attempt(3, 1)
    assert [list(each) for each in found.resources] == [
        ["tdpipe_3_0"],
        ["tdpipe_3_0"],
        ["tdpipe_3_1"],
    ]
    assert found.threads == 2
    assert find(cluster.places(stages=3, threads=7)).threads == 7


def test_attempts_count_up_within_an_epoch(cluster: Cluster) -> None:
    places = cluster.places()
    cluster.nodes = workers(1, 0, 1)
    attempts = [find(places).attempt for _ in range(2)]
    cluster.nodes += workers(4, 0, 1)
    attempts.append(find(places).attempt)
    assert attempts == [Attempt(1, 1), Attempt(1, 2), Attempt(4, 1)]
    cluster.nodes = workers(1, 0, 1)
    with pytest.raises(WorkersMissingError, match="0 of 2 workers of epoch 4"):
        find(places, 0.05)


def test_a_gpu_for_each_stage_is_needed(cluster: Cluster) -> None:
    cluster.nodes = workers(1, 0, 1)
    with pytest.raises(SettingsError, match=r"^model\.device: .*2 stages at place 0"):
        find(cluster.places(device="cuda"))
    for node in cluster.nodes:
        node["Resources"]["GPU"] = 2.0
    found = find(cluster.places(device="cuda"))
    assert found.resources[0] == {"GPU": 1.0, "tdpipe_1_0": 1.0}
    assert found.threads is None


def test_a_worker_whose_raylet_is_silent_is_waited_for(cluster: Cluster) -> None:
    cluster.nodes = workers(1, 0, 1)
    cluster.answers = False
    with pytest.raises(WorkersMissingError, match=r"no answer from the worker at 10\.0\.0\.2"):
        find(cluster.places(), 0.05)


def test_workers_that_leave_or_are_replaced_end_the_pipeline(cluster: Cluster) -> None:
    places = cluster.places()
    cluster.nodes = workers(1, 0, 1)
    attempt = find(places).attempt
    cluster.nodes += workers(2, 0)
    assert places.replaced(attempt) is None
    cluster.nodes += workers(2, 1)
    assert isinstance(places.replaced(attempt), WorkersChangedError)
    cluster.nodes = workers(1, 0)
    assert isinstance(places.replaced(attempt), WorkersChangedError)


def test_without_a_head_nothing_is_waited_for(cluster: Cluster) -> None:
    cluster.head.ended = True
    places = cluster.places()
    with pytest.raises(PipelineError, match="Ray ended"):
        find(places, 60.0)
    assert places.failure() is not None
