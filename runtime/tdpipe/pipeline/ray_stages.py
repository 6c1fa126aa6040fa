"""Running stages in Ray actors: fed, watched and ended.

Each actor is inside one endless call; steps, activations and tokens travel over sockets, and all
that Ray still does is to tell when a call ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline.stage_watch import StageWatch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from ray.actor import ActorHandle

    from tdpipe.core.step import StageReport, Step
    from tdpipe.pipeline.control_socket import ControlServer

GOODBYE_SECONDS = 1.0
"""How long stages may take to end by themselves before they are killed."""
DEATH_SECONDS = 3.0
"""How long Ray may take to tell that a process died whose connection is lost."""


class RayStages:
    """A `StageGroup` of actors. Starts their loops.

    Args:
        control: their steps and reports.
        actors: their handles, by stage.
        undo: frees all that was set up for them.
    """

    def __init__(
        self, control: ControlServer, actors: Sequence[ActorHandle], undo: ExitStack
    ) -> None:
        self._control = control
        self._undo = undo
        self._runs = [actor.run.remote() for actor in actors]
        self._watch = StageWatch(self._runs, control.interrupt)
        self._disconnected: str | None = None
        self._closed = False

    def send(self, step: Step) -> None:
        try:
            self._control.send(step)
        except PipelineError as error:
            self._disconnected = str(error)

    def receive(self, timeout: float | None) -> Sequence[StageReport]:
        reports = self._control.receive(0 if self._failure() else timeout)
        failure = self._failure()
        if failure and not reports:
            raise PipelineError(failure)
        return reports

    def interrupt(self) -> None:
        self._control.interrupt()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._watch.stop()
        with self._undo:
            if self._failure() is None:
                self._control.say_goodbye()
                ray.wait(self._runs, num_returns=len(self._runs), timeout=GOODBYE_SECONDS)
            self._watch.wait(DEATH_SECONDS)

    def _failure(self) -> str | None:
        if self._disconnected and not self._closed:
            # A lost connection is most likely a dead process, and the watch knows more about that.
            self._watch.wait(DEATH_SECONDS)
        return self._watch.failure or self._disconnected
