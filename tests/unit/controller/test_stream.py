from __future__ import annotations

import asyncio

import pytest

from tdpipe.controller.stream import RequestStream, TokenDelta
from tdpipe.core.errors import PipelineError
from tdpipe.core.request import FinishReason


class RecordedStream:
    """A stream and the calls that it makes to the engine."""

    def __init__(self) -> None:
        self.aborts = 0
        self.finishes: list[int] = []
        self.stream = RequestStream(self._abort, self.finishes.append)

    def _abort(self) -> None:
        self.aborts += 1


def delta(*tokens: int, finish: FinishReason | None = None) -> TokenDelta:
    return TokenDelta(tokens, (None,) * len(tokens), finish)


async def test_unread_deltas_are_merged_into_one() -> None:
    stream = RecordedStream().stream
    stream.push(delta(1))
    stream.push(delta(2, 3))
    stream.push(delta(4, finish=FinishReason.LENGTH))
    assert [each async for each in stream] == [delta(1, 2, 3, 4, finish=FinishReason.LENGTH)]


async def test_a_reader_that_keeps_up_gets_each_delta() -> None:
    stream = RecordedStream().stream
    for token in (1, 2):
        stream.push(delta(token))
        assert await anext(stream) == delta(token)


async def test_a_waiting_reader_is_woken_by_a_delta() -> None:
    stream = RecordedStream().stream
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.push(delta(7))
    assert await reader == delta(7)


async def test_an_abort_ends_a_waiting_reader() -> None:
    recorded = RecordedStream()

    async def read() -> list[TokenDelta]:
        return [each async for each in recorded.stream]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    recorded.stream.abort()
    assert await reader == []
    assert recorded.aborts == 1


async def test_the_engine_is_called_once() -> None:
    recorded = RecordedStream()
    recorded.stream.finish(3)
    recorded.stream.finish(4)
    recorded.stream.abort()
    assert recorded.finishes == [3]
    assert recorded.aborts == 0


async def test_an_output_that_was_read_to_its_end_needs_no_abort() -> None:
    recorded = RecordedStream()
    recorded.stream.push(delta(1, finish=FinishReason.STOP))
    assert len([each async for each in recorded.stream]) == 1
    recorded.stream.abort()
    assert recorded.aborts == 0


async def test_a_failure_comes_after_the_tokens_before_it() -> None:
    stream = RecordedStream().stream
    stream.push(delta(1))
    stream.fail(PipelineError("stage 1 failed"))
    assert await anext(stream) == delta(1)
    for _ in range(2):
        with pytest.raises(PipelineError, match="stage 1 failed"):
            await anext(stream)


async def test_a_failure_wakes_a_waiting_reader() -> None:
    stream = RecordedStream().stream
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.fail(PipelineError("the engine was closed"))
    with pytest.raises(PipelineError, match="closed"):
        await reader


async def test_a_failed_stream_has_nothing_to_abort() -> None:
    recorded = RecordedStream()
    recorded.stream.fail(PipelineError("gone"))
    recorded.stream.abort()
    assert recorded.aborts == 0
