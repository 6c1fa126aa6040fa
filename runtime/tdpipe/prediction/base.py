"""What the engine asks of a length predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution


class LengthPredictor(Protocol):
    """Predicts output lengths and learns from finished requests."""

    @property
    def version(self) -> int:
        """Grows whenever predictions made before are worth making again."""

    def predict(self, prompt_tokens: int, max_tokens: int) -> LengthDistribution:
        """The output length of a request."""

    def observe(self, output_tokens: int, *, complete: bool) -> None:
        """A request ended after so many tokens; by itself (`complete`), or cut off by its bound."""
