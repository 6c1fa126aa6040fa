"""The thread that notices when a stage ends, with an error of its own or because its process was killed.

The result of the actor's `run` call tells. The thread polls with a timeout, because a wait without one does not end
when Ray is shut down.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import ray
from ray.exceptions import OutOfMemoryError, RayError

from tdpipe.core.errors import PipelineError, StageMemoryError, TDPipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray import ObjectRef

_log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_COLLECTION_SECONDS = 0.5
"""Time to wait for further stages when one has ended. The neighbours of a killed stage lose their connections, and Ray
may report them first."""


class StageWatch:
    """A thread that waits until the `run` call of any stage ends, or the stages are replaced.

    Args:
        runs: [stages] `run` call of each stage's actor.
        replaced: function that returns an error once the stages must move to other workers.
        on_failure: function that the thread calls once, after it has set `failure`.
    """

    def __init__(
        self,
        runs: Sequence[ObjectRef[TDPipeError | None]],
        replaced: Callable[[], TDPipeError | None],
        on_failure: Callable[[], None],
    ) -> None:
        self.failure: TDPipeError | None = None
        """Error of the first stage that ended, or None while all stages run."""
        self._runs = list(runs)
        self._replaced = replaced
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stage-watch", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for `failure` to be set."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """Stop watching, because the stages are about to be stopped."""
        self._stopping.set()

    def _watch(self) -> None:
        failure: TDPipeError | None
        try:
            failure = self._await_end()
        except Exception as error:
            failure = PipelineError(f"lost the connection to Ray: {error}")
        if failure is not None and not self._stopping.is_set():
            self.failure = failure
            self._on_failure()

    def _await_end(self) -> TDPipeError | None:
        while not self._stopping.is_set():
            ended, _ = ray.wait(self._runs, timeout=_POLL_SECONDS)
            if ended and not self._stopping.is_set():
                ended, _ = ray.wait(
                    self._runs, num_returns=len(self._runs), timeout=_COLLECTION_SECONDS
                )
                return self._explain(ended)
            if (replaced := self._replaced()) is not None:
                return replaced
        return None

    def _explain(self, ended: Sequence[ObjectRef[TDPipeError | None]]) -> TDPipeError:
        deaths: list[TDPipeError] = []
        failures: list[TDPipeError] = []
        for stage, run in enumerate(self._runs):
            if run not in ended:
                continue
            try:
                failure = ray.get(run)
            except RayError as error:
                deaths.append(_death(stage, error))
            else:
                failures.append(
                    failure or PipelineError(f"the loop of stage {stage} ended").in_stage(stage)
                )
        # A death is the cause, and the failures of stages that lost a neighbour are consequences.
        first, *others = sorted(deaths or failures, key=lambda error: not _of_memory(error))
        for other in others:
            _log.error("%s", other)
        return first


def _death(stage: int, error: RayError) -> TDPipeError:
    # Ray's account of a death is a page about memory, whatever the cause; it is for the log alone.
    _log.error("the process of stage %d died: %s", stage, error)
    if isinstance(error, OutOfMemoryError):
        return StageMemoryError(
            f"the process of stage {stage} died because memory ran out; use more stages, set less cache.memory, "
            "or give the stage more memory"
        ).in_stage(stage)
    return PipelineError(f"the process of stage {stage} died").in_stage(stage)


def _of_memory(error: TDPipeError) -> bool:
    return isinstance(error, StageMemoryError)
