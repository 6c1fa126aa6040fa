"""Disconnects, readiness, metrics and shutdown of the server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tdpipe.server import sse
from tests.support.endpoint import (
    ANSWER,
    MODEL,
    Endpoint,
    answer_with,
    scripted_engine,
    scripted_model,
    serve,
)
from tests.support.fake_engine import FakeEngine

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
COMPLETION: dict[str, Any] = {"model": MODEL, "prompt": "hello"}


def metric(endpoint: Endpoint, name: str, /, **labels: str) -> float:
    text = httpx.get(f"{endpoint.url}/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    raise AssertionError(f"{name} {labels} is not in\n{text}")


@pytest.mark.parametrize("after", [0, 2])
async def test_a_stream_is_aborted_at_once_when_its_client_disconnects(after: int) -> None:
    engine = FakeEngine(answer_with(ANSWER), hang_after=after)
    with serve(engine) as endpoint:
        async with httpx.AsyncClient(base_url=endpoint.url) as client:
            body = CHAT | {"stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                assert response.status_code == 200
                if after:
                    await anext(response.aiter_lines())
                assert not engine.submissions[0].aborted
            async with asyncio.timeout(5):
                await engine.all_aborted(1)


async def test_a_request_without_streaming_is_aborted_at_once_when_its_client_disconnects() -> None:
    engine = FakeEngine(answer_with(ANSWER), hang_after=2)
    with serve(engine) as endpoint:
        async with httpx.AsyncClient(base_url=endpoint.url) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/v1/chat/completions", json=CHAT, timeout=0.2)
        async with asyncio.timeout(5):
            await engine.all_aborted(1)


@pytest.mark.parametrize("stream", [False, True])
async def test_all_prompts_of_a_request_are_aborted_with_it(stream: bool) -> None:
    engine = FakeEngine(answer_with(ANSWER), hang_after=1)
    with serve(engine) as endpoint:
        async with httpx.AsyncClient(base_url=endpoint.url) as client:
            body = COMPLETION | {"prompt": ["one", "two", "three"], "stream": stream}
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/v1/completions", json=body, timeout=0.2)
        async with asyncio.timeout(5):
            await engine.all_aborted(3)
        assert (
            metric(endpoint, "tdpipe_requests_total", endpoint="completions", outcome="aborted")
            == 3
        )


async def test_a_failing_prompt_ends_the_other_prompts_of_its_request() -> None:
    engine = FakeEngine(answer_with(ANSWER), delay=0.01)
    with serve(engine) as endpoint:
        async with httpx.AsyncClient(base_url=endpoint.url) as client:
            body = COMPLETION | {"prompt": ["one", "two"], "ignore_eos": True, "max_tokens": 200}
            answer = asyncio.create_task(client.post("/v1/completions", json=body))
            while not engine.submissions:
                await asyncio.sleep(0.01)
            engine.die("stage 0 failed")
            response = await answer
    assert response.status_code == 503


def test_a_finished_request_is_not_aborted_and_counts_its_tokens() -> None:
    engine = scripted_engine()
    with serve(engine) as endpoint:
        usage = httpx.post(f"{endpoint.url}/v1/chat/completions", json=CHAT).json()["usage"]
        assert not engine.submissions[0].aborted
        assert metric(endpoint, "tdpipe_requests_total", endpoint="chat", outcome="stop") == 1
        assert metric(endpoint, "tdpipe_prompt_tokens_total") == usage["prompt_tokens"]
        assert metric(endpoint, "tdpipe_generation_tokens_total") == usage["completion_tokens"]
        for name in ("time_to_first_token", "time_per_output_token", "request_duration"):
            assert metric(endpoint, f"tdpipe_{name}_seconds_count") == 1
        httpx.post(f"{endpoint.url}/v1/chat/completions", json=CHAT | {"model": "other"})
        assert metric(endpoint, "tdpipe_error_responses_total", code="model_not_found") == 1


def test_tokens_count_up_to_the_one_that_completes_a_stop_string() -> None:
    engine = scripted_engine()
    tokenizer = scripted_model().tokenizer
    tokens = tokenizer.encode(ANSWER)
    counted = next(n for n in range(len(tokens)) if ", 6" in tokenizer.decode(tokens[:n]))
    with serve(engine) as endpoint:
        body = COMPLETION | {"stop": ", 6", "max_tokens": 50}
        answer = httpx.post(f"{endpoint.url}/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == "4, 5"
    assert answer["usage"]["completion_tokens"] == counted
    assert engine.submissions[0].finished_at == counted
    assert not engine.submissions[0].aborted


def test_a_stop_token_ends_the_text_before_itself() -> None:
    tokenizer = scripted_model().tokenizer
    tokens = tokenizer.encode(ANSWER)
    with serve(FakeEngine(answer_with(ANSWER), tokens_per_delta=3)) as endpoint:
        body = COMPLETION | {"stop_token_ids": [tokens[2]], "max_tokens": 50}
        answer = httpx.post(f"{endpoint.url}/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == tokenizer.decode(tokens[:2])
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 3


def test_the_engine_gets_the_parameters_of_the_request() -> None:
    engine = scripted_engine()
    model = scripted_model()
    parameters = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": -0.4,
        "seed": -5,
    }
    with serve(engine, model) as endpoint:
        body = (
            CHAT
            | parameters
            | {"logit_bias": {"9": -100}, "max_completion_tokens": 9, "stop_token_ids": [42]}
        )
        httpx.post(f"{endpoint.url}/v1/chat/completions", json=body | {"logprobs": True})
        httpx.post(f"{endpoint.url}/v1/chat/completions", json=CHAT | {"ignore_eos": True})
        httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION)
    full, chat, completion = engine.submissions
    assert {name: getattr(full.sampling, name) for name in parameters} == parameters
    assert full.sampling.logit_bias == ((9, -100.0),)
    assert full.sampling.logprobs == 0
    assert full.max_tokens == 9
    assert full.stop_token_ids == {42} | model.eos_token_ids
    assert chat.stop_token_ids == frozenset()
    assert chat.max_tokens == engine.capacity.max_context - len(chat.prompt)
    assert completion.max_tokens == 16
    assert completion.sampling.temperature == 1
    assert completion.sampling.logprobs is None
    assert completion.sampling.seed != chat.sampling.seed
    assert len({s.request_id for s in engine.submissions}) == 3


def test_a_starting_server_is_live_but_not_ready() -> None:
    with serve(None) as endpoint:
        endpoint.serving.progress("loading weights")
        assert httpx.get(f"{endpoint.url}/health/live").status_code == 200
        ready = httpx.get(f"{endpoint.url}/health/ready")
        answer = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION)
        models = httpx.get(f"{endpoint.url}/v1/models")
        assert httpx.get(f"{endpoint.url}/metrics").status_code == 200
    assert (ready.status_code, ready.json()["reason"]) == (503, "starting: loading weights")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert models.status_code == 503


def test_readiness_follows_the_engine() -> None:
    engine = scripted_engine()
    with serve(engine) as endpoint:
        assert httpx.get(f"{endpoint.url}/health/ready").status_code == 200
        engine.die("stage 1 failed")
        ready = httpx.get(f"{endpoint.url}/health/ready")
        answer = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION)
        assert httpx.get(f"{endpoint.url}/health/live").status_code == 200
    assert ready.status_code == 503
    assert "stage 1 failed" in ready.json()["reason"]
    assert answer.status_code == 503


@pytest.mark.parametrize("stream", [False, True])
def test_running_requests_get_an_error_when_the_server_stops(stream: bool) -> None:
    engine = FakeEngine(answer_with(ANSWER), hang_after=1)
    answers: list[httpx.Response] = []
    with serve(engine) as endpoint:
        url = f"{endpoint.url}/v1/completions"
        body = COMPLETION | {"stream": stream}
        asking = threading.Thread(target=lambda: answers.append(httpx.post(url, json=body)))
        asking.start()
        while not engine.submissions:
            time.sleep(0.01)
    asking.join(10)
    assert answers[0].status_code == (200 if stream else 503)
    assert "shutting_down" in answers[0].text


def test_a_silent_stream_is_kept_open_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_SILENCE_SECONDS", 0.1)
    with serve(FakeEngine(answer_with(ANSWER), delay=0.35)) as endpoint:
        body = COMPLETION | {"stream": True, "max_tokens": 4}
        text = httpx.post(f"{endpoint.url}/v1/completions", json=body).text
        whole = httpx.post(f"{endpoint.url}/v1/completions", json=body | {"stream": False}).json()
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert text.count(": waiting\n\n") >= 4
    texts = [
        json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-1]
    ]
    assert "".join(texts) == whole["choices"][0]["text"]
    assert events[-1] == "data: [DONE]"


async def test_a_client_that_leaves_a_silent_stream_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "_SILENCE_SECONDS", 0.05)
    engine = FakeEngine(answer_with(ANSWER), hang_after=0)
    with serve(engine) as endpoint:
        async with httpx.AsyncClient(base_url=endpoint.url) as client:
            body = CHAT | {"stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.aiter_lines()
                while not (await anext(lines)).startswith(":"):
                    pass
            async with asyncio.timeout(5):
                await engine.all_aborted(1)


def test_an_engine_that_restarts_for_too_long_refuses_requests_for_now() -> None:
    engine = scripted_engine()
    with serve(engine) as endpoint:
        engine.reason = "the stages have been restarting for 301 s"
        response = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        error = response.json()["error"]
        assert error["code"] == "recovering"
        assert "301 s" in error["message"]
        assert httpx.get(f"{endpoint.url}/health/ready").status_code == 503


def test_each_finished_request_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tdpipe.server")
    with serve(scripted_engine()) as endpoint:
        answer = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION | {"max_tokens": 3})
    lines = [r.getMessage() for r in caplog.records if r.name == "tdpipe.server.request_record"]
    assert len(lines) == 1
    assert answer.headers["x-request-id"] in lines[0]
    assert "3 output tokens, length" in lines[0]


def test_the_routes_and_their_bodies_are_described() -> None:
    with serve(None) as endpoint:
        document = httpx.get(f"{endpoint.url}/openapi.json").json()
    route = document["paths"]["/v1/chat/completions"]["post"]
    reference = route["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    assert {"model", "messages", "temperature", "ignore_eos"} <= schema["properties"].keys()


def test_the_version_is_returned() -> None:
    with serve(None) as endpoint:
        assert set(httpx.get(f"{endpoint.url}/version").json()) == {"version"}
