"""Runs `tdpipe` with a scripted engine in place of the real one.

The environment says how it behaves: `START_SECONDS`, `TOKEN_SECONDS` and `CLOSE_SECONDS` are how long starting, a token
and closing take, `START_ERROR` makes the start fail, and `REQUEST_ERROR` makes the engine die soon after a request.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

from tdpipe.cli import main
from tdpipe.core.errors import PipelineError
from tests.support.endpoint import ANSWER, answer_with
from tests.support.fake_engine import FakeEngine, FakeStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings

FAILURE = "stage 1 failed:\nTraceback (most recent call last)\nOSError: no room"


class SlowToClose(FakeEngine):
    def submit(self, *request: Any) -> FakeStream:  # noqa: ANN401 - handed on
        if os.environ.get("REQUEST_ERROR"):
            threading.Timer(0.2, self.die, [FAILURE]).start()
        return super().submit(*request)

    def close(self) -> None:
        super().close()
        time.sleep(float(os.environ.get("CLOSE_SECONDS", "0")))


def start_engine(
    settings: Settings, _: object, progress: Callable[[str], None], host: None
) -> FakeEngine:
    assert host is None
    progress(f"loading {settings.pipeline.stages} stages")
    if os.environ.get("START_ERROR"):
        raise PipelineError(FAILURE)
    time.sleep(float(os.environ.get("START_SECONDS", "0")))
    progress("warming up")
    delay = float(os.environ.get("TOKEN_SECONDS", "0"))
    return SlowToClose(answer_with(ANSWER), delay=delay, hang_after=3)


def plan_stages(settings: Settings) -> types.SimpleNamespace:
    description = types.SimpleNamespace(path=settings.model.path, eos_token_ids=())
    return types.SimpleNamespace(description=description)


def replace_engine(
    put: Callable[[dict[str, types.ModuleType], str, types.ModuleType], None],
) -> None:
    """Let `tdpipe serve` import the functions of this module instead of the engine's.

    Args:
        put: sets (dictionary, key, value), as pytest's `monkeypatch.setitem` does.
    """
    controller = types.ModuleType("tdpipe.controller.start")
    controller.start_engine = start_engine  # type: ignore[attr-defined]
    controller.plan_stages = plan_stages  # type: ignore[attr-defined]
    put(sys.modules, controller.__name__, controller)


if __name__ == "__main__":
    replace_engine(dict.__setitem__)
    main(sys.argv[1:])
