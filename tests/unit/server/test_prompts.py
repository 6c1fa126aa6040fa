from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from tdpipe.server.chat_template import TemplateMessage
from tdpipe.server.disconnect import ClientGoneError
from tdpipe.server.errors import ApiError
from tdpipe.server.prompts import check_message_count, tokenize_chat, tokenize_texts
from tdpipe.server.serving import Serving
from tests.support.tokenizer_kinds import build_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 2**20


def never() -> bool:
    return False


async def connected() -> dict[str, str]:
    await asyncio.Event().wait()
    raise AssertionError


async def gone() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def gone_soon() -> dict[str, str]:
    await asyncio.sleep(0.05)
    return await gone()


def test_an_oversized_text_is_refused_by_its_field() -> None:
    with pytest.raises(ApiError, match=r"^prompt: the prompt has more than \d+ tokens") as refused:
        tokenize_texts(["the " * 10_000], build_tokenizer("byte_level"), 50, never)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")


def test_an_oversized_conversation_is_refused_by_its_field() -> None:
    messages = [TemplateMessage("user", ("the " * 10_000,))]
    with pytest.raises(ApiError, match=r"^messages: the prompt has more than") as refused:
        tokenize_chat(messages, build_tokenizer("byte_level"), 50, never)
    assert refused.value.code == "context_length_exceeded"


def test_more_messages_than_tokens_fit_are_refused_before_the_template_is_rendered() -> None:
    check_message_count(50, 50)
    with pytest.raises(ApiError, match="51 messages"):
        check_message_count(51, 50)


async def test_a_short_text_passes_long_ones() -> None:
    serving, blocked = Serving(), threading.Event()
    long = [
        asyncio.create_task(serving.tokenize(connected, LONG, lambda _: blocked.wait(60)))
        for _ in range(3)
    ]
    await asyncio.sleep(0)
    assert await serving.tokenize(connected, 10, lambda _: "short") == "short"
    assert not any(task.done() for task in long)
    blocked.set()
    assert await asyncio.gather(*long) == [True] * 3


async def test_a_text_whose_client_has_gone_is_given_up() -> None:
    serving, blocked, begun, told = (
        Serving(),
        threading.Event(),
        threading.Event(),
        threading.Event(),
    )
    first = asyncio.create_task(serving.tokenize(connected, LONG, lambda _: blocked.wait(60)))
    await asyncio.sleep(0)
    with pytest.raises(ClientGoneError):  # it waits behind the first, and never begins
        await serving.tokenize(gone, LONG, lambda _: begun.set())
    blocked.set()
    await first

    def until_told(cancelled: Callable[[], bool]) -> None:
        while not cancelled():
            threading.Event().wait(0.01)
        told.set()

    with pytest.raises(ClientGoneError):
        await serving.tokenize(gone_soon, LONG, until_told)
    assert await asyncio.to_thread(told.wait, 60)
    assert not begun.is_set()
