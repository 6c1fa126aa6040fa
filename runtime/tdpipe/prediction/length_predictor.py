"""Interface between the engine and a length predictor.

The engine depends on this protocol only, so a predictor can be replaced without a change to the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.prediction.features import PromptFeatures


class LengthPredictor(Protocol):
    """Predicts output lengths and learns from finished requests.

    Any thread may call `predict`; only one thread may call `observe`.
    """

    @property
    def version(self) -> int:
        """Number that grows whenever earlier predictions should be repeated."""

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        """Predict the output length of a request; no outcome exceeds its `max_tokens`."""

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """Learn from a request that has ended.

        Args:
            features: Features of the request.
            output_tokens: Number of tokens that were generated.
            complete: True if the output reached an end token or a stop string, False if `max_tokens` or the client
                cut it off.
        """

    def close(self) -> None:
        """Stop all background work. Idempotent."""
