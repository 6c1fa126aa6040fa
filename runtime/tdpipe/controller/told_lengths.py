"""Predictions that are given with the requests, for runs that are compared with a simulation of the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.prediction.features import PromptFeatures


class ToldLengths:
    """The `LengthPredictor` that answers with these distributions, one for each request, and learns nothing.

    Args:
        lengths: in the order in which requests are submitted.
    """

    version = 0

    def __init__(self, lengths: Iterable[LengthDistribution]) -> None:
        self._lengths = iter(lengths)

    def predict(self, features: PromptFeatures) -> LengthDistribution:  # noqa: ARG002
        """The next request's distribution.

        Raises:
            StopIteration: there are more requests than distributions.
        """
        return next(self._lengths)

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """Nothing is learned."""

    def close(self) -> None:
        """Nothing runs in the background."""
