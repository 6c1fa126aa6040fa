from __future__ import annotations

import pytest
from fastapi import Request

from tdpipe.server.context import RequestContext
from tdpipe.server.errors import ApiError
from tdpipe.server.schemas.completions import CompletionBody
from tdpipe.server.serving import Service, Serving
from tdpipe.server.submission import submit
from tests.support.endpoint import ANSWER, MODEL, answer_with, scripted_model
from tests.support.fake_engine import FakeEngine, FakeLimits


def refusal(limits: FakeLimits, *, prompt: int, asked: int | None) -> str:
    """What a client is told who asks for more than fits."""
    engine = FakeEngine(answer_with(ANSWER), limits=limits)
    context = RequestContext(Request({"type": "http"}), Serving(), "1", arrived=0.0)
    tokens = (5,) * prompt
    body = CompletionBody(model=MODEL, prompt=[list(tokens)], max_tokens=asked)
    with pytest.raises(ApiError) as caught:
        submit(context, Service(engine, scripted_model()), body, [tokens])
    return str(caught.value)


@pytest.mark.parametrize(("prompt", "asked"), [(64, None), (60, 5)])
def test_the_kv_cache_and_its_settings_are_named_where_they_are_the_limit(
    prompt: int, asked: int | None
) -> None:
    message = refusal(FakeLimits(max_context=1024, kv_tokens=64), prompt=prompt, asked=asked)
    assert "the KV cache holds 64" in message
    assert "cache.memory or cache.blocks" in message


@pytest.mark.parametrize(("prompt", "asked"), [(64, None), (60, 5)])
def test_the_context_alone_is_named_where_it_is_the_limit(prompt: int, asked: int | None) -> None:
    message = refusal(FakeLimits(max_context=64, kv_tokens=64), prompt=prompt, asked=asked)
    assert "the context holds 64" in message
    assert "cache" not in message
