"""Retraining from finished requests while the engine serves.

Training runs in a process of its own at the lowest priority, and the thread here only waits for it, so neither the
engine's loop nor the interpreter's lock is ever held up.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

from tdpipe.core.errors import TDPipeError
from tdpipe.prediction.reservoir import Reservoir

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.prediction.input_vector import InputVector
    from tdpipe.prediction.length_model import LengthModel
    from tdpipe.prediction.training_rows import TrainingRows
    from tdpipe.prediction.verdict import Verdict

_log = logging.getLogger(__name__)
_FIRST_LESSON = 512
_JOIN_SECONDS = 5.0


class Trainer(Protocol):
    """Trains somewhere else."""

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Verdict:
        """Train on older rows and judge by the newest; blocks until it is done.

        Raises:
            TDPipeError: it failed, or was stopped.
        """

    def stop(self) -> None:
        """End what `train` does, from any thread. Idempotent."""


class OnlineTraining:
    """Collects finished requests and lets a trainer learn from them, once in a while.

    Args:
        capacity: rows that are kept.
        trainer: does the work.
        incumbent: the model in use, of which a new one is judged beside.
        adopt: takes what turned out best; called on a thread of this object's.
    """

    def __init__(
        self,
        capacity: int,
        trainer: Trainer,
        incumbent: Callable[[], LengthModel | None],
        adopt: Callable[[Verdict], None],
    ) -> None:
        self._reservoir = Reservoir(capacity)
        self._capacity = capacity
        self._trainer = trainer
        self._incumbent = incumbent
        self._adopt = adopt
        self._next_lesson = min(_FIRST_LESSON, capacity)
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, vector: InputVector, length: int, bound: int, *, complete: bool) -> None:
        """One more row, see `Reservoir.add`; training starts when there are half as many again as the last time."""
        self._reservoir.add(vector, length, bound, complete=complete)
        seen = self._reservoir.seen
        busy = self._thread is not None and self._thread.is_alive()
        if seen < self._next_lesson or busy or self._closed:
            return
        self._next_lesson = seen + min(seen, self._capacity) // 2
        self._thread = threading.Thread(
            target=self._learn, args=(self._reservoir.rows(),), name="training", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End a training that runs. Idempotent."""
        self._closed = True
        self._trainer.stop()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    def _learn(self, rows: TrainingRows) -> None:
        try:
            verdict = self._trainer.train(rows, self._incumbent())
        except TDPipeError as error:
            if not self._closed:
                _log.warning("length predictor: training failed: %s", error)
            return
        _log.info("length predictor: %s", verdict)
        self._adopt(verdict)
