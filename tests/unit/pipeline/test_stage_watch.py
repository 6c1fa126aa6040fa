"""What clients and the log are told of a stage whose process ends, with Ray's functions replaced by fakes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import OutOfMemoryError, RayError

from tdpipe.pipeline.ray.stage_watch import StageWatch

if TYPE_CHECKING:
    import pytest

    from tdpipe.core.errors import TDPipeError

ACCOUNT = "The worker died.\nMemory on the node was 15.3 of 16 GB; set RAY_memory_usage_threshold."
"""The account of a death as Ray gives it, whatever the cause."""


def failure_after(error: RayError, monkeypatch: pytest.MonkeyPatch) -> TDPipeError:
    """Return what a watch over two stages says when `error` is the end of the second."""
    runs: Any = ["first", "second"]

    def get(_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "wait", lambda *_, **__: (runs[1:], runs[:1]))
    monkeypatch.setattr(ray, "get", get)
    failed = threading.Event()
    watch = StageWatch(runs, lambda: None, failed.set)
    assert failed.wait(60)
    assert watch.failure is not None
    return watch.failure


def test_ray_s_account_of_a_death_goes_to_the_log_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert str(failure_after(RayError(ACCOUNT), monkeypatch)) == "the process of stage 1 died"
    assert ACCOUNT in caplog.text


def test_a_death_for_want_of_memory_names_the_settings_that_need_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = str(failure_after(OutOfMemoryError(ACCOUNT), monkeypatch))
    assert "died because memory ran out; use more stages, set less cache.memory" in message
    assert "RAY_" not in message
