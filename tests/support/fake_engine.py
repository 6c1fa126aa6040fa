"""An engine that answers from a script, for tests of the server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.controller.snapshot import EngineSnapshot
from tdpipe.controller.stream import TokenDelta
from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import PipelineError, RequestError, ShutdownError, TDPipeError
from tdpipe.core.request import FinishReason
from tdpipe.core.sampling import SamplingParams, TokenLogprobs

if TYPE_CHECKING:
    from tdpipe.prediction.features import PromptFeatures

Script = Callable[[tuple[int, ...]], Sequence[int]]


CAPACITY = Capacity(blocks=64, block_size=16, slots=64, max_context=256)


@dataclass(frozen=True, slots=True)
class FakeHealth:
    ready: bool
    error: TDPipeError | None
    reason: str | None = None
    alive: bool = True


@dataclass(slots=True)
class Submission:
    """What the engine was asked, and what became of it."""

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams
    stop_token_ids: frozenset[int]
    request_id: str
    features: PromptFeatures | None = None
    aborted: bool = False
    finished_at: int | None = None


class FakeEngine:
    """Answers each prompt with the tokens that `script` gives for it, over and over.

    Args:
        script: output tokens of a prompt; an end token in it ends the output.
        capacity: what requests must fit into.
        delay: seconds before each delta.
        hang_after: deltas after which a stream brings nothing more.
        fail_after: deltas after which a stream raises.
        tokens_per_delta: how many tokens come at once.
        refuse: message of the RequestError that every submission raises.
    """

    def __init__(
        self,
        script: Script,
        *,
        capacity: Capacity = CAPACITY,
        delay: float = 0.0,
        hang_after: int | None = None,
        fail_after: int | None = None,
        tokens_per_delta: int = 1,
        refuse: str | None = None,
    ) -> None:
        self.capacity = capacity
        self.vocab_size = 4096
        self.script = script
        self.delay = delay
        self.hang_after = hang_after
        self.fail_after = fail_after
        self.tokens_per_delta = tokens_per_delta
        self.refuse = refuse
        self.error: TDPipeError | None = None
        self.reason: str | None = None
        self.alive = True
        self.closed = False
        self.submissions: list[Submission] = []
        self._streams: list[FakeStream] = []

    def submit(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        sampling: SamplingParams,
        stop_token_ids: frozenset[int],
        request_id: str,
        features: PromptFeatures | None = None,
    ) -> FakeStream:
        if self.refuse is not None:
            raise RequestError(self.refuse, "prompt")
        submission = Submission(prompt, max_tokens, sampling, stop_token_ids, request_id, features)
        self.submissions.append(submission)
        stream = FakeStream(self, submission)
        self._streams.append(stream)
        return stream

    def health(self) -> FakeHealth:
        ready = self.error is None and self.reason is None
        return FakeHealth(ready, self.error, self.reason, self.alive)

    def snapshot(self) -> EngineSnapshot:
        return EngineSnapshot()

    def close(self) -> None:
        self.closed = True
        self._end(ShutdownError("the engine was closed"))

    def die(self, error: str) -> None:
        """Fail every stream, from any thread."""
        self._end(PipelineError(error))

    def _end(self, error: TDPipeError) -> None:
        self.error = error
        for stream in self._streams:
            stream.interrupt()

    async def all_aborted(self, count: int) -> None:
        """Wait until there are `count` submissions and each is aborted."""
        while len(self.submissions) < count or not all(s.aborted for s in self.submissions):
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class FakeStream:
    engine: FakeEngine
    submission: Submission
    _deltas: Iterator[TokenDelta] = field(init=False)
    _count: int = 0
    _interrupted: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def __post_init__(self) -> None:
        self._deltas = self._play()

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> TokenDelta:
        engine = self.engine
        if engine.error is None:
            hangs = engine.hang_after is not None and self._count >= engine.hang_after
            await self._pause(None if hangs else engine.delay)
        if engine.error is not None:
            raise engine.error
        if engine.fail_after is not None and self._count >= engine.fail_after:
            raise PipelineError("stage 1 failed:\nTraceback\n  …\nRuntimeError: scripted failure")
        delta = next(self._deltas, None)
        if delta is None:
            raise StopAsyncIteration
        self._count += 1
        return delta

    def abort(self) -> None:
        self.submission.aborted = True

    def finish(self, length: int) -> None:
        self.submission.finished_at = length

    def interrupt(self) -> None:
        self._loop.call_soon_threadsafe(self._interrupted.set)

    async def _pause(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._interrupted.wait()
        except TimeoutError:
            pass

    def _play(self) -> Iterator[TokenDelta]:
        asked = self.submission
        tokens: list[int] = []
        for number, token in enumerate(itertools.cycle(self.engine.script(asked.prompt)), start=1):
            tokens.append(token)
            finish = None
            if token in asked.stop_token_ids:
                finish = FinishReason.STOP
            elif number == asked.max_tokens:
                finish = FinishReason.LENGTH
            if finish is not None or len(tokens) == self.engine.tokens_per_delta:
                scores = tuple(self._score(token) for token in tokens)
                yield TokenDelta(tuple(tokens), scores, finish)
                tokens = []
            if finish is not None:
                return

    def _score(self, token: int) -> TokenLogprobs | None:
        count = self.submission.sampling.logprobs
        if count is None:
            return None
        top = tuple(token + rank for rank in range(count))
        return TokenLogprobs(-0.25, top, tuple(-0.25 * (rank + 1) for rank in range(count)))
