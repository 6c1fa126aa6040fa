from __future__ import annotations

import asyncio

import pytest

from tdpipe.controller.stream import RequestStream, TokenDelta
from tdpipe.core.errors import PipelineError
from tdpipe.core.request import FinishReason


class Told:
    """What the engine was told by the stream."""

    def __init__(self) -> None:
        self.aborts = 0
        self.finishes: list[int] = []
        self.stream = RequestStream(self._abort, self.finishes.append)

    def _abort(self) -> None:
        self.aborts += 1


def delta(*tokens: int, finish: FinishReason | None = None) -> TokenDelta:
    return TokenDelta(tokens, (None,) * len(tokens), finish)


async def test_deltas_that_nobody_read_yet_come_as_one() -> None:
    stream = Told().stream
    stream.push(delta(1))
    stream.push(delta(2, 3))
    stream.push(delta(4, finish=FinishReason.LENGTH))
    assert [each async for each in stream] == [delta(1, 2, 3, 4, finish=FinishReason.LENGTH)]


async def test_a_reader_that_keeps_up_gets_each_delta() -> None:
    stream = Told().stream
    for token in (1, 2):
        stream.push(delta(token))
        assert await anext(stream) == delta(token)


async def test_a_waiting_reader_is_woken_by_a_delta() -> None:
    stream = Told().stream
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.push(delta(7))
    assert await reader == delta(7)


async def test_an_abort_ends_a_waiting_reader() -> None:
    told = Told()

    async def read() -> list[TokenDelta]:
        return [each async for each in told.stream]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    told.stream.abort()
    assert await reader == []
    assert told.aborts == 1


async def test_the_engine_is_told_once() -> None:
    told = Told()
    told.stream.finish(3)
    told.stream.finish(4)
    told.stream.abort()
    assert told.finishes == [3]
    assert told.aborts == 0


async def test_an_output_that_was_read_to_its_end_needs_no_abort() -> None:
    told = Told()
    told.stream.push(delta(1, finish=FinishReason.STOP))
    assert len([each async for each in told.stream]) == 1
    told.stream.abort()
    assert told.aborts == 0


async def test_a_failure_comes_after_the_tokens_before_it() -> None:
    stream = Told().stream
    stream.push(delta(1))
    stream.fail("stage 1 failed")
    assert await anext(stream) == delta(1)
    for _ in range(2):
        with pytest.raises(PipelineError, match="stage 1 failed"):
            await anext(stream)


async def test_a_failure_wakes_a_waiting_reader() -> None:
    stream = Told().stream
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.fail("the engine was closed")
    with pytest.raises(PipelineError, match="closed"):
        await reader


async def test_a_failed_stream_has_nothing_to_abort() -> None:
    told = Told()
    told.stream.fail("gone")
    told.stream.abort()
    assert told.aborts == 0
