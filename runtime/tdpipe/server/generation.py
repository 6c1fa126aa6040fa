"""Turns the engine's tokens of one prompt into text, and ends it at a stop token or stop string."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from tdpipe.controller.stream import TokenDelta
from tdpipe.core.errors import PipelineError
from tdpipe.core.request import FinishReason
from tdpipe.core.sampling import TokenLogprobs
from tdpipe.server.detokenizer import Detokenizer
from tdpipe.server.engine_port import TokenStream
from tdpipe.server.request_record import Outcome, RecordSink, RequestRecord
from tdpipe.server.stop_strings import StopStrings


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """An output token with its log-probabilities."""

    token: int
    logprobs: TokenLogprobs
    offset: int
    """Number of output characters before the token's own text."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that one delta of the engine added. It may be empty while characters are held back."""

    text: str
    tokens: tuple[ScoredToken, ...]
    """Output tokens with log-probabilities; empty if the request asked for none."""
    finish: FinishReason | None


class Generation:
    """Iterates over the text deltas of one request; the last one has a finish reason.

    Callers must call `close` in the end; it aborts the request if the reader stopped early.

    Args:
        stream: the engine's stream of the request.
        detokenizer: a new one for this output.
        stops: new ones for this output.
        stop_token_ids: tokens that end the output. They are counted, but are not part of the text.
        record: the request's figures, which are kept up to date.
        sink: called with the record when the request has ended for any reason.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        detokenizer: Detokenizer,
        stops: StopStrings,
        stop_token_ids: frozenset[int],
        record: RequestRecord,
        sink: RecordSink,
    ) -> None:
        self.record = record
        self._stream = stream
        self._detokenizer = detokenizer
        self._stops = stops
        self._stop_token_ids = stop_token_ids
        self._sink = sink
        self._characters = 0

    def __aiter__(self) -> AsyncIterator[TextDelta]:
        return self

    async def __anext__(self) -> TextDelta:
        """Wait for the next delta.

        Raises:
            PipelineError: the engine failed.
        """
        if self.record.outcome is not None:
            raise StopAsyncIteration
        try:
            delta = await self._next_tokens()
            result = self._to_text(delta)
        except Exception:
            self._stream.abort()
            self._end("error")
            raise
        if result.finish is not None:
            self._end("stop" if result.finish is FinishReason.STOP else "length")
        return result

    def close(self) -> None:
        """Abort the request if it has not ended. Idempotent."""
        if self.record.outcome is None:
            self._stream.abort()
        self._end("aborted")

    async def _next_tokens(self) -> TokenDelta:
        try:
            delta = await self._stream.__anext__()
        except StopAsyncIteration:
            raise PipelineError("the engine ended the request without a finish reason") from None
        if delta.finish is FinishReason.ABORT:
            raise PipelineError("the engine aborted the request")
        return delta

    def _to_text(self, delta: TokenDelta) -> TextDelta:
        record = self.record
        if delta.tokens:
            record.mark_tokens()
        text, scored = "", []
        for token, logprobs in zip(delta.tokens, delta.logprobs, strict=True):
            if logprobs is not None:
                scored.append(ScoredToken(token, logprobs, self._characters))
            record.output_tokens += 1
            if token in self._stop_token_ids:
                break
            piece = self._detokenizer.step(token)
            self._characters += len(piece)
            shown, stopped = self._stops.feed(piece)
            text += shown
            if stopped:
                self._stream.finish(record.output_tokens)
                return TextDelta(text, tuple(scored), FinishReason.STOP)
        finish = delta.finish
        if finish is not None:
            shown, stopped = self._stops.feed(self._detokenizer.finish())
            text += shown + self._stops.flush()
            finish = FinishReason.STOP if stopped else finish
        return TextDelta(text, tuple(scored), finish)

    def _end(self, outcome: Outcome) -> None:
        if self.record.outcome is None:
            self.record.end(outcome)
            self._sink(self.record)
