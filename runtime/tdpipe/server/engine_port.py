"""The part of an engine that the server uses, so that tests can replace the engine by a scripted one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from tdpipe.controller.snapshot import EngineSnapshot
from tdpipe.controller.stream import TokenDelta
from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import TDPipeError
from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.features import PromptFeatures


class TokenStream(Protocol):
    """Output tokens of one request. Iterating raises PipelineError if the engine fails or is closed."""

    def __aiter__(self) -> AsyncIterator[TokenDelta]: ...

    async def __anext__(self) -> TokenDelta: ...

    def abort(self) -> None:
        """Drop the request because its caller went away. Idempotent."""

    def finish(self, length: int) -> None:
        """End the request at a stop string: only its first `length` output tokens count."""


class Health(Protocol):
    """State of the engine."""

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""

    @property
    def error(self) -> TDPipeError | None:
        """The error that the engine has ended with, or None."""

    @property
    def reason(self) -> str | None:
        """Why requests are not taken, or None."""

    @property
    def alive(self) -> bool:
        """Whether the engine's loop turns, or has ended for a known reason."""


class EnginePort(Protocol):
    """An engine. `submit` is called on the server's event loop, everything else on any thread."""

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
        """Queue a request.

        Args:
            prompt: token ids.
            max_tokens: output tokens that the request may have.
            sampling: how tokens are chosen.
            stop_token_ids: tokens that end the output.
            request_id: unique among the running requests.
            features: what the length predictor knows of the request; None leaves it the other arguments.

        Raises:
            RequestError: the request can never fit.
        """

    def health(self) -> Health: ...

    def snapshot(self) -> EngineSnapshot: ...

    def close(self) -> None:
        """Stop within seconds. Streams that are still read raise PipelineError."""
