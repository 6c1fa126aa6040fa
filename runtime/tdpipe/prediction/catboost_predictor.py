"""The engine's length predictor: CatBoost's trees if they are better than the mean, else the survival curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.prediction.features import feature_vector
from tdpipe.prediction.online_training import OnlineTraining
from tdpipe.prediction.survival_predictor import SurvivalPredictor
from tdpipe.prediction.tenant_history import TenantHistory

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.prediction.evaluation import Evaluation
    from tdpipe.prediction.features import PromptFeatures
    from tdpipe.prediction.length_model import LengthModel
    from tdpipe.prediction.online_training import Trainer


class CatBoostPredictor:
    """Predicts with a model and replaces it when training finds a better one.

    Args:
        model: Model to start with; None starts with the survival curve of finished requests.
        trainer: Trainer that creates new models from finished requests; None keeps the model.
        training_rows: Maximum number of finished requests that are kept in memory for training.
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
                training_rows, trainer, lambda: self._model, self._apply
            )
        # Two counters, because each may be written by one thread only.
        self._model_version, self._survival_version = 0, 0

    @property
    def version(self) -> int:
        """Number that grows when the model is replaced and, while there is no model, with the survival curve."""
        return self._model_version + self._survival_version

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        """See `LengthPredictor.predict`; takes tens of microseconds."""
        model = self._model
        if model is None or not features.can_stop:
            return self._survival.predict(features)
        return model.predict(feature_vector(features, self._tenants), features.max_tokens)

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """See `LengthPredictor.observe`; empty outputs and requests that cannot stop are ignored."""
        if output_tokens < 1 or not features.can_stop:
            return
        self._survival.observe(features, output_tokens, complete=complete)
        if self._model is None:
            self._survival_version = self._survival.version
        if self._training is not None:
            vector = feature_vector(features, self._tenants)
            self._training.add(vector, output_tokens, features.max_tokens, complete=complete)
        self._tenants.record(features.tenant, output_tokens)

    def close(self) -> None:
        """See `LengthPredictor.close`."""
        if self._training is not None:
            self._training.close()

    def _apply(self, evaluation: Evaluation) -> None:
        if evaluation.choice == "candidate":
            self._model = evaluation.candidate
            self._model_version += 1
        elif evaluation.choice == "mean" and self._model is not None:
            self._model = None
            self._model_version += 1
