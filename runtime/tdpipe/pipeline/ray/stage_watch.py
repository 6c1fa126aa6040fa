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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray import ObjectRef

    from tdpipe.core.step import StageFailure

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_COLLECTION_SECONDS = 0.5
"""Time to wait for further stages when one has ended. The neighbours of a killed stage lose their connections, and Ray
may report them first."""


class StageWatch:
    """A thread that waits until the `run` call of any stage ends.

    Args:
        runs: [stages] `run` call of each stage's actor.
        on_failure: function that the thread calls once, after it has set `failure`.
    """

    def __init__(
        self, runs: Sequence[ObjectRef[StageFailure | None]], on_failure: Callable[[], None]
    ) -> None:
        self.failure: str | None = None
        """Text of the failure, with its traceback if there is one, or None while all stages run."""
        self._runs = list(runs)
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
        try:
            failure = self._await_end()
        except Exception as error:
            failure = f"lost the connection to Ray: {error}"
        if failure is not None and not self._stopping.is_set():
            self.failure = failure
            self._on_failure()

    def _await_end(self) -> str | None:
        while not self._stopping.is_set():
            ended, _ = ray.wait(self._runs, timeout=_POLL_SECONDS)
            if ended and not self._stopping.is_set():
                ended, _ = ray.wait(
                    self._runs, num_returns=len(self._runs), timeout=_COLLECTION_SECONDS
                )
                return self._explain(ended)
        return None

    def _explain(self, ended: Sequence[ObjectRef[StageFailure | None]]) -> str:
        deaths, failures = [], []
        for stage, run in enumerate(self._runs):
            if run not in ended:
                continue
            try:
                failure = ray.get(run)
            except RayError as error:
                # Ray's account of a death is a page about memory, whatever the cause; it is for the log alone.
                _log.error("the process of stage %d died: %s", stage, error)
                cause = " because memory ran out" if isinstance(error, OutOfMemoryError) else ""
                deaths.append(f"the process of stage {stage} died{cause}")
            else:
                reason = "its loop ended" if failure is None else failure.traceback
                failures.append(f"stage {stage} failed:\n{reason}")
        # A death is the cause, and the failures of stages that lost a neighbour are consequences.
        return "\n".join(deaths or failures)
