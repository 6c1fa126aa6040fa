from __future__ import annotations

import asyncio

import pytest
from fastapi import Request

from tdpipe.core.capacity import Capacity
from tdpipe.prediction.text_features import extract_text_features
from tdpipe.server.context import RequestContext
from tdpipe.server.errors import ApiError
from tdpipe.server.prompts import TokenizedPrompt
from tdpipe.server.schemas.completions import CompletionBody
from tdpipe.server.serving import Service, Serving
from tdpipe.server.submission import submit
from tests.support.endpoint import ANSWER, MODEL, answer_with, scripted_model
from tests.support.fake_engine import FakeEngine, Submission


def submitted(body: CompletionBody, prompt: TokenizedPrompt) -> Submission:
    """What the engine is asked."""
    (submission,) = submissions(body, [prompt])
    return submission


def submissions(body: CompletionBody, prompts: list[TokenizedPrompt]) -> list[Submission]:
    engine = FakeEngine(answer_with(ANSWER))
    context = RequestContext(Request({"type": "http"}), Serving(), "1", None, arrived=0.0)
    service = Service(engine, scripted_model())

    async def call() -> None:
        submit(context, service, body, prompts).close()

    asyncio.run(call())
    return engine.submissions


def refusal(capacity: Capacity, *, prompt: int, asked: int | None) -> str:
    """Message of the error for a request that does not fit."""
    engine = FakeEngine(answer_with(ANSWER), capacity=capacity)
    context = RequestContext(Request({"type": "http"}), Serving(), "1", None, arrived=0.0)
    tokens = (5,) * prompt
    body = CompletionBody(model=MODEL, prompt=[list(tokens)], max_tokens=asked)
    with pytest.raises(ApiError) as caught:
        submit(context, Service(engine, scripted_model()), body, [TokenizedPrompt(tokens)])
    return str(caught.value)


@pytest.mark.parametrize(("prompt", "asked"), [(64, None), (60, 5)])
def test_the_kv_cache_and_its_settings_are_named_where_they_are_the_limit(
    prompt: int, asked: int | None
) -> None:
    message = refusal(
        Capacity(blocks=4, block_size=16, slots=64, max_context=1024), prompt=prompt, asked=asked
    )
    assert "the KV cache holds 64" in message
    assert "cache.memory or cache.blocks" in message


@pytest.mark.parametrize(("prompt", "asked"), [(64, None), (60, 5)])
def test_the_context_alone_is_named_where_it_is_the_limit(prompt: int, asked: int | None) -> None:
    message = refusal(
        Capacity(blocks=4, block_size=16, slots=64, max_context=64), prompt=prompt, asked=asked
    )
    assert "the context holds 64" in message
    assert "cache" not in message


def test_the_engine_gets_the_features_that_predict_the_length() -> None:
    text = extract_text_features("Count from 4 to 11.")
    body = CompletionBody(model=MODEL, prompt=["x"], max_tokens=30, temperature=0.5, user="ada")
    features = submitted(body, TokenizedPrompt((5, 6, 7), text)).features
    assert features is not None
    assert (features.prompt_tokens, features.max_tokens, features.tenant) == (3, 30, "ada")
    assert features.sampling.temperature == 0.5
    assert features.text is text
    assert features.can_stop


@pytest.mark.parametrize(("stop", "can_stop"), [(None, False), (["\n"], True)])
def test_without_end_token_only_a_stop_string_ends_an_output_early(
    stop: list[str] | None, can_stop: bool
) -> None:
    body = CompletionBody(model=MODEL, prompt=["x"], max_tokens=30, ignore_eos=True, stop=stop)
    features = submitted(body, TokenizedPrompt((5,))).features
    assert features is not None
    assert features.can_stop is can_stop


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_each_choice_of_a_call_draws_for_itself(seed: int | None) -> None:
    body = CompletionBody(model=MODEL, prompt=["a"] * 8, seed=seed)
    prompts = [TokenizedPrompt((5,))] * 8
    seeds = [[each.sampling.seed for each in submissions(body, prompts)] for _ in range(2)]
    assert all(len(set(each)) == 8 for each in seeds)
    assert (seeds[0] == seeds[1]) == (seed is not None)
    assert seed is None or seeds[0][0] == seed
