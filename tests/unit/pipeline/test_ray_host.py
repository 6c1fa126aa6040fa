"""The progress and the time limits of a start, with Ray's functions replaced by fakes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import ray

from tdpipe.core.attempt import FIRST_ATTEMPT
from tdpipe.core.errors import PipelineError
from tdpipe.core.settings import PipelineSettings
from tdpipe.pipeline.ray import host
from tdpipe.pipeline.ray.host import RayHost
from tdpipe.pipeline.ray.places import Places
from tests.support.fake_executor import FakeStages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from tdpipe.pipeline.ray.deadline import Deadline
    from tdpipe.pipeline.transport.rendezvous import Rendezvous

LOAD_SECONDS = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    loads: bool


class SlowActors:
    """Actors that load one after the other, on a clock that moves meanwhile, and do not connect."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.load = self.connect = self
        self.rendezvous: list[Rendezvous] = []

    def options(self, **_: object) -> SlowActors:
        return self

    def remote(self, *arguments: Any) -> Any:  # noqa: ANN401 - as Ray's
        """Create an actor, or call one of its two methods."""
        if isinstance(arguments[0], FakeStages):
            return Call(loads=True)
        if hasattr(arguments[0], "join_timeout"):
            self.rendezvous.append(arguments[0])
            return Call(loads=False)
        return self

    def wait(self, calls: Sequence[Call], **_: object) -> tuple[list[Call], list[Call]]:
        if calls[0].loads:
            self.now += LOAD_SECONDS
        return [calls[0]], list(calls[1:])

    def get(self, call: Call) -> object:
        if call.loads:
            return SimpleNamespace(name="layers", seconds=LOAD_SECONDS, fitting_blocks=8)
        return PipelineError("not connected")


class LocalPlaces:
    def find(
        self, deadline: Deadline, _progress: Callable[[str], None], _undo: ExitStack
    ) -> Places:
        cluster: Any = SimpleNamespace(local=True, host="127.0.0.1", interface=None)
        return Places(FIRST_ATTEMPT, cluster, "cpu", ({"CPU": 1.0},) * 2, 1, deadline)

    def replaced(self, _: object) -> None:
        return None

    def failure(self) -> None:
        return None

    def close(self) -> None:
        pass


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> SlowActors:
    actors = SlowActors()
    placement = SimpleNamespace(sharing=lambda: [2, 2], options=lambda _: {}, remove=lambda: None)
    monkeypatch.setattr(host, "Placement", lambda *_: placement)
    monkeypatch.setattr(ray, "remote", lambda _: actors)
    monkeypatch.setattr(ray, "wait", actors.wait)
    monkeypatch.setattr(ray, "get", actors.get)
    monkeypatch.setattr(time, "monotonic", lambda: actors.now)
    return actors


def start(lines: list[str], **limits: float) -> None:
    RayHost(PipelineSettings(**limits), FakeStages(2), LocalPlaces()).start(lines.append)  # type: ignore[arg-type]


@pytest.mark.usefixtures("actors")
def test_a_start_says_that_it_loads_and_how_much_is_loaded() -> None:
    lines: list[str] = []
    with pytest.raises(PipelineError, match="not connected"):
        start(lines)
    assert lines[:2] == ["placing 2 stages", "loading the weights of 2 stages"]
    assert lines[2:4] == [
        f"stage {stage}: layers loaded in 100.0 s ({stage + 1} of 2 stages)" for stage in (0, 1)
    ]


def test_loading_does_not_count_against_the_time_for_placing_and_connecting(
    actors: SlowActors,
) -> None:
    with pytest.raises(PipelineError, match="not connected"):
        start([], start_timeout=60.0)
    assert [each.join_timeout for each in actors.rendezvous] == [60.0, 60.0]
