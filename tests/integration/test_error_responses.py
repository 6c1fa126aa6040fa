"""Every error response has OpenAI's format and names a remedy."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from tdpipe.core.capacity import Capacity
from tdpipe.server.app import create_app
from tdpipe.server.serving import Serving
from tests.support.endpoint import ANSWER, MODEL, answer_with, scripted_model, serve
from tests.support.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
COMPLETION = {"model": MODEL, "prompt": "hello"}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    engine = FakeEngine(answer_with(ANSWER))
    with serve(engine) as endpoint, httpx.Client(base_url=endpoint.url) as client:
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == (
        "server_error" if response.status_code >= 500 else "invalid_request_error"
    )
    return error


CHAT_REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 2}, "n", "Only one output per prompt"),
    ({"tools": [{}]}, "tools", "not supported"),
    ({"logit_bias": {"9" * 5_000: 1}}, "logit_bias", "token id"),
    ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"temperature": True}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"top_k": -2}, "top_k", "greater than or equal to -1"),
    ({"top_k": 1.5}, "top_k", "valid integer"),
    ({"min_p": 1.1}, "min_p", "less than or equal to 1"),
    ({"repetition_penalty": 1e-40}, "repetition_penalty", "greater than or equal to 0.01"),
    ({"presence_penalty": -3}, "presence_penalty", "-2"),
    ({"frequency_penalty": 3}, "frequency_penalty", "2"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1", "100"),
    ({"logit_bias": {"one": 1}}, "logit_bias", "token id"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "vocabulary"),
    ({"seed": 2**64}, "seed", "less than"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": True}, "max_tokens", "valid integer"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "max_completion_tokens"),
    ({"stop": [""]}, "stop", "1 to 1024 characters"),
    ({"stop": ["x"] * 17}, "stop", "at most 16"),
    ({"stop": 5}, "stop", "valid array"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "greater than or equal to 0"),
    ({"stop_token_ids": [99999]}, "stop_token_ids", "vocabulary"),
    ({"logit_bias": {str(i): 1 for i in range(4_097)}}, "logit_bias", "at most 4096"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    ({"logprobs": 1}, "logprobs", "boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "leave it out"),
    ({"response_format": {"type": "json_object"}}, "response_format.type", "text"),
    ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    ({"tool_choice": "required"}, "tool_choice", "none"),
    ({"functions": [{"name": "f"}]}, "functions", "not supported"),
    ({"best_of": 1}, "best_of", "unknown field; leave it out"),
    ({"stop": [1] * 100_000}, "stop", "has 100000 strings; give at most 16"),
    ({"stop_token_ids": ["a"] * 2_000}, "stop_token_ids", "at most 1024"),
    ({"messages": [{"role": "user", "content": [{}] * 2_000}]}, "messages[0].content", "1024"),
    ({"messages": [{}] * 16_385}, "messages", "has 16385 messages; give at most 16384"),
    ({"reasoning_effort": "low"}, "reasoning_effort", "unknown field; leave it out"),
    ({"store": True}, "store", "False"),
    ({"max_token": 1}, "max_token", "unknown field; did you mean max_tokens?"),
    ({"i" * 1_000_000: 1}, "i" * 80 + "…", "unknown field"),
    ({"prompt": "x"}, "prompt", "use messages"),
    ({"invented": 1}, "invented", "leave it out"),
    ({"model": None}, "model", "string"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "'user'"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "must be given"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "text parts"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
            ]
        },
        "messages[0].content[0].image_url",
        "only text is supported",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "name": "a b"}]},
        "messages[0].name",
        "pattern",
    ),
    (
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
        "messages[0].tool_calls",
        "not supported",
    ),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "the user speaks first"),
]

COMPLETION_REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": []}, "prompt", "is empty"),
    ({"prompt": [[]]}, "prompt", "is empty"),
    ({"prompt": {}}, "prompt", "give a string"),
    ({"prompt": ["a", 1]}, "prompt", "mixes"),
    ({"prompt": [1, -1]}, "prompt", "holds the token id -1; ids are 0 or more"),
    ({"prompt": [1, 2**40]}, "prompt", f"token id {2**40} is outside the vocabulary"),
    ({"prompt": [[1], [2**70]]}, "prompt", f"token id {2**70} is outside the vocabulary"),
    ({"prompt": [True]}, "prompt", "mixes"),
    ({"prompt": [99999]}, "prompt", "vocabulary"),
    ({"logprobs": 21}, "logprobs", "20"),
    ({"logprobs": True}, "logprobs", "valid integer; got true"),
    ({"best_of": 2}, "best_of", "1"),
    ({"echo": True}, "echo", "False"),
    ({"suffix": "x"}, "suffix", 'should be null; got "x"'),
    ({"max_completion_tokens": 5}, "max_completion_tokens", "use max_tokens"),
    ({"messages": []}, "messages", "use prompt"),
]


@pytest.mark.parametrize(("change", "param", "says"), CHAT_REFUSALS, ids=str)
def test_chat_rejects_what_it_does_not_support(
    http: httpx.Client, change: dict[str, Any], param: str, says: str
) -> None:
    response = http.post("/v1/chat/completions", json=CHAT | change)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize(("change", "param", "says"), COMPLETION_REFUSALS, ids=str)
def test_completions_reject_what_they_do_not_support(
    http: httpx.Client, change: dict[str, Any], param: str, says: str
) -> None:
    response = http.post("/v1/completions", json=COMPLETION | change)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1, "user": "me", "stream": False, "temperature": None, "stop": None, "seed": None},
        {"tools": None, "tool_choice": "none", "response_format": {"type": "text"}},
        {"functions": None, "logprobs": False, "top_k": -1, "stop": "x"},
        {"tools": [], "tool_choice": "auto", "functions": []},
        {"store": False, "service_tier": "auto", "modalities": ["text"], "prediction": None},
        {
            "messages": [
                {"role": "user", "content": "x"},
                {
                    "role": "assistant",
                    "content": "y",
                    "tool_calls": [],
                    "annotations": [],
                    "reasoning_content": None,
                    "refusal": None,
                    "audio": None,
                },
                {"role": "user", "content": "z"},
            ]
        },
    ],
    ids=str,
)
def test_chat_accepts_default_values_of_unsupported_fields(
    http: httpx.Client, change: dict[str, Any]
) -> None:
    assert http.post("/v1/chat/completions", json=CHAT | change).status_code == 200


def test_completions_accept_default_values_of_unsupported_fields(http: httpx.Client) -> None:
    neutral = {"n": 1, "best_of": 1, "echo": False, "suffix": None, "logprobs": False}
    response = http.post("/v1/completions", json=COMPLETION | neutral)
    assert response.status_code == 200
    assert response.json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model": NaN'])
def test_a_body_that_is_no_json_object_is_rejected(http: httpx.Client, body: bytes) -> None:
    response = http.post("/v1/completions", content=body)
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_json"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_numbers_that_json_does_not_allow_are_rejected(http: httpx.Client, number: str) -> None:
    body = json.dumps(COMPLETION)[:-1] + f', "temperature": {number}}}'
    response = http.post("/v1/completions", content=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == "temperature"


def test_unknown_routes_and_methods_have_the_same_format(http: httpx.Client) -> None:
    missing, wrong = http.get("/v1/nothing"), http.get("/v1/completions")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_every_response_has_its_own_request_id(http: httpx.Client) -> None:
    ids = [http.get(path).headers["x-request-id"] for path in ("/version", "/nothing", "/version")]
    assert len(set(ids)) == 3


def test_the_limit_is_named_when_prompt_and_output_do_not_fit() -> None:
    capacity = Capacity(blocks=5, block_size=8, slots=64, max_context=100)
    with serve(FakeEngine(answer_with(ANSWER), capacity=capacity)) as endpoint:
        body = COMPLETION | {"prompt": [5] * 30, "max_tokens": 11}
        response = httpx.post(f"{endpoint.url}/v1/completions", json=body)
        fitting = httpx.post(f"{endpoint.url}/v1/completions", json=body | {"max_tokens": 10})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["param"], error["code"]) == ("max_tokens", "context_length_exceeded")
    assert all(
        figure in error["message"] for figure in ("30", "11", "41", "KV cache holds 40", "10")
    )
    assert fitting.status_code == 200


def test_a_request_that_the_engine_rejects_is_rejected() -> None:
    with serve(FakeEngine(answer_with(ANSWER), refuse="can never fit")) as endpoint:
        response = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION | {"stream": True})
    assert response.status_code == 400
    assert error_of(response)["message"] == "can never fit"


def test_an_engine_that_fails_gives_503_with_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    with serve(FakeEngine(answer_with(ANSWER), fail_after=2)) as endpoint:
        response = httpx.post(f"{endpoint.url}/v1/chat/completions", json=CHAT)
    assert response.status_code == 503
    assert "RuntimeError: scripted failure" in error_of(response)["message"]
    assert "Traceback" not in response.text
    assert response.headers["retry-after"]
    # The engine logs its failure once, so the server does not log it for each request.
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_stream_that_fails_ends_with_an_error_event() -> None:
    with (
        serve(FakeEngine(answer_with(ANSWER), fail_after=2)) as endpoint,
        openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none") as client,
    ):
        stream = client.completions.create(model=MODEL, prompt="hello", stream=True)
        with pytest.raises(openai.APIError, match="scripted failure"):
            for _ in stream:
                pass
        body = COMPLETION | {"stream": True}
        events = httpx.post(f"{endpoint.url}/v1/completions", json=body).text.split("\n\n")
    assert "error" in json.loads(events[-2].removeprefix("data: "))
    assert events[-1] == ""
    assert "[DONE]" not in "".join(events)


def test_without_a_chat_template_only_chat_is_rejected() -> None:
    model = scripted_model(chat=False)
    with serve(FakeEngine(answer_with(ANSWER)), model) as endpoint:
        chat = httpx.post(f"{endpoint.url}/v1/chat/completions", json=CHAT)
        completion = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION)
    assert chat.status_code == 400
    assert "/v1/completions" in error_of(chat)["message"]
    assert completion.status_code == 200


def test_an_internal_error_is_reported_without_details(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(answer_with(ANSWER))
    monkeypatch.setattr(engine, "submit", lambda *_: 1 / 0)
    with serve(engine) as endpoint:
        response = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION)
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert "division" not in response.text


async def test_a_client_that_disconnects_during_its_upload_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    serving = Serving()
    upload: list[Message] = [
        {"type": "http.request", "body": b'{"model": ', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return upload.pop(0)

    async def send(_: Message) -> None:
        pass

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/completions"}
    scope |= {"query_string": b"", "headers": []}
    await create_app(serving)(scope, receive, send)
    assert not upload
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert b"tdpipe_error_responses_total{" not in serving.metrics.render()[0]


def test_too_many_prompts_and_too_large_bodies_are_rejected(http: httpx.Client) -> None:
    many = http.post("/v1/completions", json=COMPLETION | {"prompt": [[1]] * 1_025})
    assert many.status_code == 400
    assert "at most 1024" in error_of(many)["message"]
    large = http.post("/v1/completions", json=COMPLETION | {"prompt": "x" * (9 * 2**20)})
    assert large.status_code == 413
    assert "8 MiB" in error_of(large)["message"]
