"""Predictions that are given with the requests, for runs that are compared with a simulation of the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.prediction.features import PromptFeatures


class ToldLengths:
    """The `LengthPredictor` that answers with what it is told, and learns nothing."""

    version = 0

    def __init__(self) -> None:
        self._next: LengthDistribution | None = None

    def tell(self, lengths: LengthDistribution) -> None:
        """Of the request that is submitted next."""
        self._next = lengths

    def predict(self, features: PromptFeatures) -> LengthDistribution:  # noqa: ARG002
        """What was told last.

        Raises:
            LookupError: nothing was told since the last request.
        """
        if self._next is None:
            raise LookupError("no length was told")
        told, self._next = self._next, None
        return told

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """Nothing is learned."""

    def close(self) -> None:
        """Nothing runs in the background."""
