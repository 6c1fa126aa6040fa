"""Notices that a stage ended, whether it says why or is killed without a word.

Ray tells through the result of the actor's endless call. Polling with a timeout is deliberate: a
wait without one does not survive Ray being shut down under it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray import ObjectRef

    from tdpipe.core.step import StageFailure

POLL_SECONDS = 0.5
GRACE_SECONDS = 0.5
"""How long to listen for others when one stage has ended: the neighbours of a killed stage lose
their connections, and may be heard first."""


class StageWatch:
    """A thread that waits for any of the stages' endless calls to end.

    Args:
        runs: the call of each stage.
        on_failure: called once, from the thread, after `failure` is set.
    """

    def __init__(
        self, runs: Sequence[ObjectRef[StageFailure | None]], on_failure: Callable[[], None]
    ) -> None:
        self.failure: str | None = None
        """What happened, with the traceback where there is one; None as long as all stages run."""
        self._runs = list(runs)
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stage-watch", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for `failure` to be set."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """Watch no longer: stages that end from now on do so on purpose."""
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
            ended, _ = ray.wait(self._runs, timeout=POLL_SECONDS)
            if ended and not self._stopping.is_set():
                ended, _ = ray.wait(self._runs, num_returns=len(self._runs), timeout=GRACE_SECONDS)
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
                deaths.append(f"the process of stage {stage} died: {error}")
            else:
                reason = "its loop ended" if failure is None else failure.traceback
                failures.append(f"stage {stage} failed:\n{reason}")
        # Who died is the cause; that others lost a neighbour is a consequence.
        return "\n".join(deaths or failures)
