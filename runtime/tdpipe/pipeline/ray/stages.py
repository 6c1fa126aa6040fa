"""Running stages in Ray actors.

Each actor executes one call that lasts as long as the pipeline. Steps, activations and tokens travel over sockets, and
Ray only reports when a call ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline.ray.stage_watch import StageWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from ray.actor import ActorHandle

    from tdpipe.core.errors import TDPipeError
    from tdpipe.core.step import StageReport, Step
    from tdpipe.pipeline.transport.control_socket import ControlServer

_EXIT_SECONDS = 1.0
"""Time that stages have to end their loops before they are killed."""
_DEATH_REPORT_SECONDS = 2.0
"""Time that Ray may take to report the death of a process whose connection is lost."""


class RayStages:
    """A `StageGroup` of actors, whose loops it starts.

    Args:
        control: sockets of their steps and reports.
        actors: [stages] handle of each stage's actor.
        replaced: function that returns an error once the stages must move to other workers.
        undo: stack of callbacks that free everything that was started for them.
    """

    def __init__(
        self,
        control: ControlServer,
        actors: Sequence[ActorHandle],
        replaced: Callable[[], TDPipeError | None],
        undo: ExitStack,
    ) -> None:
        self._control = control
        self._undo = undo
        self._runs = [actor.run.remote() for actor in actors]
        self._watch = StageWatch(self._runs, replaced, control.interrupt)
        self._disconnected: TDPipeError | None = None
        self._closed = False

    def send(self, step: Step) -> None:
        try:
            self._control.send(step)
        except PipelineError as error:
            self._disconnected = error

    def receive(self, timeout: float | None) -> Sequence[StageReport]:
        reports: Sequence[StageReport] = ()
        try:
            reports = self._control.receive(0 if self._failure() else timeout)
        except PipelineError as error:
            self._disconnected = self._disconnected or error
        failure = self._failure()
        if failure and not reports:
            raise failure
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
                self._control.stop_stages()
                ray.wait(self._runs, num_returns=len(self._runs), timeout=_EXIT_SECONDS)
            self._watch.wait(_DEATH_REPORT_SECONDS)

    def _failure(self) -> TDPipeError | None:
        if self._disconnected and not self._closed:
            # A lost connection most likely means a dead process, for which the watch has the reason.
            self._watch.wait(_DEATH_REPORT_SECONDS)
        return self._watch.failure or self._disconnected
