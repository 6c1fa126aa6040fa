"""Lengths from CatBoost's trees where these are better than the mean, else from what finished requests survived."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.prediction.input_vector import input_vector
from tdpipe.prediction.online_training import OnlineTraining
from tdpipe.prediction.survival import SurvivalPredictor
from tdpipe.prediction.tenants import TenantHistory

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.prediction.features import PromptFeatures
    from tdpipe.prediction.length_model import LengthModel
    from tdpipe.prediction.online_training import Trainer
    from tdpipe.prediction.verdict import Verdict


class CatBoostPredictor:
    """Predicts with a model, and replaces it by better ones.

    Args:
        model: to begin with; None begins with the survival curve of finished requests.
        trainer: makes new models from finished requests; None keeps the model.
        training_rows: finished requests to learn from that are kept in memory.
    """

    def __init__(
        self, model: LengthModel | None, trainer: Trainer | None = None, training_rows: int = 4096
    ) -> None:
        self._model = model
        self._survival = SurvivalPredictor()
        self._tenants = TenantHistory()
        self._training = None
        if trainer is not None:
            self._training = OnlineTraining(
                training_rows, trainer, lambda: self._model, self._adopt
            )
        # Each has one thread that writes it.
        self._swaps, self._survival_version = 0, 0

    @property
    def version(self) -> int:
        """Grows when the model is replaced, and with the survival curve while there is no model."""
        return self._swaps + self._survival_version

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        """See `LengthPredictor.predict`; takes tens of microseconds."""
        model = self._model
        if model is None or not features.can_stop:
            return self._survival.predict(features)
        return model.predict(input_vector(features, self._tenants), features.max_tokens)

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """See `LengthPredictor.observe`; nothing is learned from an empty output, or one that could not stop."""
        if output_tokens < 1 or not features.can_stop:
            return
        self._survival.observe(features, output_tokens, complete=complete)
        if self._model is None:
            self._survival_version = self._survival.version
        if self._training is not None:
            vector = input_vector(features, self._tenants)
            self._training.add(vector, output_tokens, features.max_tokens, complete=complete)
        self._tenants.note(features.tenant, output_tokens)

    def close(self) -> None:
        """See `LengthPredictor.close`."""
        if self._training is not None:
            self._training.close()

    def _adopt(self, verdict: Verdict) -> None:
        if verdict.choice == "candidate":
            self._model = verdict.candidate
            self._swaps += 1
        elif verdict.choice == "mean" and self._model is not None:
            self._model = None
            self._swaps += 1
