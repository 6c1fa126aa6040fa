"""A worker's settings, its probes and its wait for a controller, without Ray."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tdpipe.core.errors import SettingsError, WorkersMissingError
from tdpipe.core.settings import load_settings
from tdpipe.worker.worker import Worker
from tests.support.endpoint import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., Worker]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "token").write_text("secret")

    def make_worker(start_timeout: float = 60.0, **cluster: object) -> Worker:
        fields: dict[str, Any] = {
            "token_file": tmp_path / "token",
            "address": f"127.0.0.1:{free_port()}",
            "place": 0,
            "probe_port": free_port(),
        }
        pipeline = {"stages": 3, "start_timeout": start_timeout}
        return Worker(load_settings(None, {"cluster": fields | cluster, "pipeline": pipeline}))

    return make_worker


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", None),
        ("address", "controller"),
        ("address", ":6379"),
        ("place", None),
        ("place", 3),
        ("token_file", None),
    ],
)
def test_a_setting_that_a_worker_cannot_use_is_named(make: Make, field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"^cluster\.{field}: "):
        make(**{field: value})


def test_a_controller_that_never_answers_is_given_up(make: Make) -> None:
    with pytest.raises(WorkersMissingError, match=r"could not be joined within 0\.2 s"):
        make(start_timeout=0.2).run()


def test_a_worker_that_waits_is_live_not_ready_and_ends_when_asked(make: Make) -> None:
    worker = make()
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert worker.not_live() is None
    assert "not joined to 127.0.0.1" in (worker.not_ready() or "")
    worker.stop()
    thread.join(10)
    assert not thread.is_alive()
