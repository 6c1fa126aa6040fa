"""What the engine asks of a length predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.prediction.features import PromptFeatures


class LengthPredictor(Protocol):
    """Predicts output lengths and learns from finished requests.

    `predict` may be called on any thread, `observe` on one only.
    """

    @property
    def version(self) -> int:
        """Grows whenever predictions made before are worth making again."""

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        """The output length of a request, at most its `max_tokens`."""

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """A request ended after so many tokens; by itself (`complete`), or cut off by its bound or its client."""

    def close(self) -> None:
        """End what runs in the background. Idempotent."""
