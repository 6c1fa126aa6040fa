"""The `openai` client against the server with a scripted engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.support.endpoint import Endpoint, scripted_engine, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletionUserMessageParam


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serve(scripted_engine()) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def messages(endpoint: Endpoint) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": endpoint.question}]


def test_the_model_is_listed_and_found(endpoint: Endpoint, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [endpoint.model]
    assert client.models.retrieve(endpoint.model).id == endpoint.model


def test_a_conversation_is_answered(
    endpoint: Endpoint, client: openai.OpenAI, messages: list[ChatCompletionUserMessageParam]
) -> None:
    answer = client.chat.completions.create(model=endpoint.model, messages=messages, temperature=0)
    assert answer.choices[0].message.role == "assistant"
    assert (answer.choices[0].message.content or "").strip() == endpoint.answer
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id is not None


def test_a_dumped_answer_can_be_sent_back_as_a_message(
    endpoint: Endpoint, client: openai.OpenAI, messages: list[ChatCompletionUserMessageParam]
) -> None:
    asked: Any = [{"role": "developer", "content": "Be brief."}, *messages]
    answer = client.chat.completions.create(model=endpoint.model, messages=asked).choices[0].message
    conversation: list[Any] = [*asked, answer.model_dump(), *asked]
    again = client.chat.completions.create(model=endpoint.model, messages=conversation)
    assert again.choices[0].message.content == endpoint.answer


def test_a_streamed_answer_equals_the_whole_answer(
    endpoint: Endpoint, client: openai.OpenAI, messages: list[ChatCompletionUserMessageParam]
) -> None:
    whole = client.chat.completions.create(model=endpoint.model, messages=messages, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=endpoint.model,
            messages=messages,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *parts, last = chunks
    deltas = [part.choices[0].delta for part in parts]
    assert deltas[0].role == "assistant"
    assert all(delta.role is None for delta in deltas[1:])
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason] == [
        "stop"
    ]
    assert parts[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage == whole.usage
    assert all(part.usage is None for part in parts)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_has_no_usage_unless_asked(
    endpoint: Endpoint, client: openai.OpenAI, messages: list[ChatCompletionUserMessageParam]
) -> None:
    stream = client.chat.completions.create(
        model=endpoint.model, messages=messages, stream=True, max_tokens=3
    )
    chunks = list(stream)
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}


async def test_the_async_client_gets_the_same_answer(
    endpoint: Endpoint, messages: list[ChatCompletionUserMessageParam]
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{endpoint.url}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(
            model=endpoint.model, messages=messages, temperature=0
        )
        stream = await client.chat.completions.create(
            model=endpoint.model, messages=messages, temperature=0, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content


def test_a_completion_is_cut_at_its_token_limit(endpoint: Endpoint, client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model=endpoint.model,
        prompt=endpoint.question,
        max_tokens=3,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3


def test_each_prompt_of_a_completion_becomes_a_choice(
    endpoint: Endpoint, client: openai.OpenAI
) -> None:
    prompts = [endpoint.question, endpoint.question + " ", endpoint.question]
    whole = client.completions.create(
        model=endpoint.model, prompt=prompts, max_tokens=5, temperature=0
    )
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert whole.choices[0].text == whole.choices[2].text
    texts = ["", "", ""]
    finishes: list[int] = []
    for chunk in client.completions.create(
        model=endpoint.model,
        prompt=prompts,
        max_tokens=5,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                finishes.append(choice.index)
        usage = chunk.usage
    assert texts == [choice.text for choice in whole.choices]
    assert sorted(finishes) == [0, 1, 2]
    assert usage == whole.usage


def test_a_prompt_can_be_token_ids(endpoint: Endpoint, client: openai.OpenAI) -> None:
    one = client.completions.create(model=endpoint.model, prompt=[5, 6, 7], max_tokens=2)
    two = client.completions.create(model=endpoint.model, prompt=[[5, 6], [7]], max_tokens=2)
    assert one.usage is not None
    assert one.usage.prompt_tokens == 3
    assert [choice.index for choice in two.choices] == [0, 1]


@pytest.mark.parametrize("stream", [False, True])
def test_text_ends_before_a_stop_string(
    endpoint: Endpoint,
    client: openai.OpenAI,
    messages: list[ChatCompletionUserMessageParam],
    stream: bool,
) -> None:
    stop = endpoint.answer[4:9]
    if stream:
        chunks = client.chat.completions.create(
            model=endpoint.model, messages=messages, temperature=0, stop=stop, stream=True
        )
        choices = [chunk.choices[0] for chunk in chunks]
        text, finish = "".join(c.delta.content or "" for c in choices), choices[-1].finish_reason
    else:
        answer = client.chat.completions.create(
            model=endpoint.model, messages=messages, temperature=0, stop=[stop, "never"]
        )
        text, finish = answer.choices[0].message.content or "", answer.choices[0].finish_reason
    assert text.strip() == endpoint.answer[:4].strip()
    assert finish == "stop"


def test_chat_logprobs_cover_every_token(
    endpoint: Endpoint, client: openai.OpenAI, messages: list[ChatCompletionUserMessageParam]
) -> None:
    answer = client.chat.completions.create(
        model=endpoint.model,
        messages=messages,
        temperature=0,
        max_tokens=4,
        logprobs=True,
        top_logprobs=2,
    )
    logprobs, usage = answer.choices[0].logprobs, answer.usage
    assert logprobs is not None
    assert logprobs.content is not None
    assert usage is not None
    assert len(logprobs.content) == usage.completion_tokens
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 2
    text = b"".join(bytes(entry.bytes or []) for entry in logprobs.content)
    assert (answer.choices[0].message.content or "").encode() == text


def test_completion_logprobs_stream_with_their_text(
    endpoint: Endpoint, client: openai.OpenAI
) -> None:
    chunks = client.completions.create(
        model=endpoint.model, prompt=endpoint.question, max_tokens=4, logprobs=2, stream=True
    )
    tokens, offsets = [], []
    for chunk in chunks:
        logprobs = chunk.choices[0].logprobs
        assert logprobs is not None
        tokens += logprobs.tokens or []
        offsets += logprobs.text_offset or []
        assert len(logprobs.token_logprobs or []) == len(logprobs.top_logprobs or [])
    assert len(tokens) == len(offsets) == 4
    assert offsets == sorted(offsets)


def test_the_same_seed_gives_the_same_text(
    endpoint: Endpoint, client: openai.OpenAI, messages: list[ChatCompletionUserMessageParam]
) -> None:
    texts = {
        client.chat.completions.create(
            model=endpoint.model, messages=messages, temperature=1.5, seed=7, max_tokens=12
        )
        .choices[0]
        .message.content
        for _ in range(2)
    }
    assert len(texts) == 1


def test_another_model_is_not_found(
    client: openai.OpenAI, messages: list[ChatCompletionUserMessageParam]
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=messages)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_prompt_beyond_the_context_is_rejected(endpoint: Endpoint, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=endpoint.model, prompt=[5] * 20_000)
    assert caught.value.code == "context_length_exceeded"
    assert "20000 tokens" in caught.value.message
