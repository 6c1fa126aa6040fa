"""Training on finished requests while the engine serves.

Training runs in a separate process at the lowest priority. The thread started here only waits for it, so training
delays neither the engine's loop nor other threads of its process.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

from tdpipe.core.errors import TDPipeError
from tdpipe.prediction.reservoir import Reservoir

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.prediction.evaluation import Evaluation
    from tdpipe.prediction.features import FeatureVector
    from tdpipe.prediction.length_model import LengthModel
    from tdpipe.prediction.training_rows import TrainingRows

_log = logging.getLogger(__name__)
_MIN_ROWS = 512
"""Number of finished requests before the first training, unless the capacity is smaller."""
_JOIN_TIMEOUT_SECONDS = 5.0


class Trainer(Protocol):
    """Trains models outside of the engine's threads."""

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Evaluation:
        """Train on the older rows and evaluate on the newest; returns when this is done.

        Args:
            rows: Finished requests, oldest first.
            incumbent: Model in use, which is evaluated on the same rows.

        Raises:
            TDPipeError: Training failed or was stopped.
        """

    def stop(self) -> None:
        """Stop a running `train`; may be called on any thread. Idempotent."""


class OnlineTraining:
    """Collects finished requests and starts trainings on them at growing intervals.

    Args:
        capacity: Maximum number of rows that are kept.
        trainer: Trainer that creates new models.
        incumbent: Function that returns the model in use.
        on_trained: Function that is called with each evaluation, on the training thread.
    """

    def __init__(
        self,
        capacity: int,
        trainer: Trainer,
        incumbent: Callable[[], LengthModel | None],
        on_trained: Callable[[Evaluation], None],
    ) -> None:
        self._reservoir = Reservoir(capacity)
        self._capacity = capacity
        self._trainer = trainer
        self._incumbent = incumbent
        self._on_trained = on_trained
        self._next_training = min(_MIN_ROWS, capacity)
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, vector: FeatureVector, length: int, max_tokens: int, *, complete: bool) -> None:
        """Add a row as `Reservoir.add` does; a training starts when there are half as many more as at the last one."""
        self._reservoir.add(vector, length, max_tokens, complete=complete)
        added = self._reservoir.added
        running = self._thread is not None and self._thread.is_alive()
        if added < self._next_training or running or self._closed:
            return
        self._next_training = added + min(added, self._capacity) // 2
        self._thread = threading.Thread(
            target=self._train, args=(self._reservoir.rows(),), name="training", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop a running training and start no more. Idempotent."""
        self._closed = True
        self._trainer.stop()
        if self._thread is not None:
            self._thread.join(_JOIN_TIMEOUT_SECONDS)

    def _train(self, rows: TrainingRows) -> None:
        try:
            evaluation = self._trainer.train(rows, self._incumbent())
        except TDPipeError as error:
            if not self._closed:
                _log.warning("length predictor: training failed: %s", error)
            return
        _log.info("length predictor: %s", evaluation)
        self._on_trained(evaluation)
