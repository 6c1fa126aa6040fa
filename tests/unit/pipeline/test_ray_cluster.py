from __future__ import annotations

import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
import ray

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline.ray import temporary
from tdpipe.pipeline.ray.cluster import RayCluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Puts something else in the place of `ray.init`, with no Ray initialised."""

    def replace(action: Callable[[], None]) -> None:
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(ray, "init", lambda **_: action())

    return replace


def fail() -> None:
    raise ConnectionError("Could not find any running Ray instance.\nPlease specify the one.")


def test_a_ray_that_is_nowhere_is_told_by_the_variable_and_the_remedy(
    init: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    init(fail)
    with pytest.raises(PipelineError, match=r"^RAY_ADDRESS=auto: .*ray start --head") as caught:
        RayCluster.join(1, 10.0)
    assert "\n" not in str(caught.value)


def test_a_start_that_fails_leaves_no_folder(
    init: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(temporary, "_MAX_SOCKET_PATH", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    init(fail)
    with pytest.raises(PipelineError, match="did not start"):
        RayCluster.join(1, 10.0)
    assert not list(tmp_path.iterdir())


def test_a_signal_waits_until_a_ray_that_starts_has_stopped_again(
    init: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(temporary, "_MAX_SOCKET_PATH", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    starting, stopped = threading.Event(), threading.Event()

    def start() -> None:
        starting.set()
        threading.Event().wait(0.2)

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - as its base class
            if threading.current_thread() is threading.main_thread() and timeout == 30.0:
                starting.wait()
                raise KeyboardInterrupt
            return super().wait(timeout)

    init(start)
    monkeypatch.setattr(ray, "shutdown", stopped.set)
    monkeypatch.setattr(threading, "Event", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        RayCluster.join(1, 30.0)
    assert stopped.is_set()
    assert not list(tmp_path.iterdir())
