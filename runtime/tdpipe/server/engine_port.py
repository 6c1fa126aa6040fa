"""What the server needs of an engine, so that tests can put a scripted one in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from tdpipe.controller.snapshot import EngineSnapshot
from tdpipe.controller.stream import TokenDelta
from tdpipe.core.capacity import Capacity
from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.features import PromptFeatures


class TokenStream(Protocol):
    """One request's output tokens; iterating raises PipelineError if the engine dies or closes."""

    def __aiter__(self) -> AsyncIterator[TokenDelta]: ...

    async def __anext__(self) -> TokenDelta: ...

    def abort(self) -> None:
        """The caller went away; idempotent."""

    def finish(self, length: int) -> None:
        """A stop string was found: only the first `length` output tokens count."""


class Health(Protocol):
    @property
    def ready(self) -> bool: ...

    @property
    def error(self) -> str | None: ...


class EnginePort(Protocol):
    """Submitting happens on the server's event loop; everything else may happen on any thread."""

    @property
    def capacity(self) -> Capacity: ...

    @property
    def vocab_size(self) -> int: ...

    def submit(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        sampling: SamplingParams,
        stop_token_ids: frozenset[int],
        request_id: str,
        features: PromptFeatures | None = None,
    ) -> TokenStream:
        """Queue a request; raises RequestError if it can never fit.

        `features` tell more than the other arguments about how long the output may be.
        """

    def health(self) -> Health: ...

    def snapshot(self) -> EngineSnapshot: ...

    def close(self) -> None:
        """End everything within seconds; streams that are still read raise PipelineError."""
