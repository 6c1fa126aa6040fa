"""What clients, proxies and generators of clients rely on, beside the answers themselves."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tdpipe.core.settings import ServerSettings
from tdpipe.server import timed_http
from tdpipe.server.app import create_app
from tdpipe.server.http_server import HttpServer, listen
from tdpipe.server.schemas import body as body_module
from tdpipe.server.serving import Serving
from tests.support.endpoint import ANSWER, MODEL, answer_with, free_port, scripted_engine, serve
from tests.support.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPLETION: dict[str, Any] = {"model": MODEL, "prompt": "hello"}
PROBES = ("/health", "/health/live", "/health/ready")


def test_a_connection_lives_on_after_a_bug_which_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine(answer_with(ANSWER))
    monkeypatch.setattr(engine, "submit", lambda *_: 1 / 0)
    with serve(engine) as endpoint, httpx.Client(base_url=endpoint.url) as http:
        with http.stream("POST", "/v1/completions", json=COMPLETION) as failed:
            connection = failed.extensions["network_stream"].get_extra_info("client_addr")
            failed.read()
        with http.stream("GET", "/version") as after:
            assert after.extensions["network_stream"].get_extra_info("client_addr") == connection
    assert (failed.status_code, after.status_code) == (500, 200)
    assert failed.json()["error"]["code"] == "internal_error"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1


def test_a_client_s_request_id_comes_back_and_stands_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "tdpipe.server")
    with serve(scripted_engine()) as endpoint:
        answers = [
            httpx.post(
                f"{endpoint.url}/v1/completions", json=COMPLETION, headers={"X-Request-Id": "a-7"}
            )
            for _ in range(2)
        ]
    assert [answer.headers["x-request-id"] for answer in answers] == ["a-7", "a-7"]
    assert answers[0].json()["id"] != answers[1].json()["id"]
    assert sum("a-7" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "né".encode().decode("latin-1")])
def test_a_request_id_that_could_break_a_log_is_replaced(given: str) -> None:
    with serve(None) as endpoint:
        headers = [(b"X-Request-Id", given.encode("latin-1"))]
        answered = httpx.get(f"{endpoint.url}/version", headers=headers)
    assert answered.headers["x-request-id"] != given


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_answer_get_and_head(path: str, method: str) -> None:
    with serve(scripted_engine()) as endpoint:
        ready = httpx.request(method, endpoint.url + path)
    with serve(None) as endpoint:
        starting = httpx.request(method, endpoint.url + path)
    assert ready.status_code == 200
    assert starting.status_code == (200 if path == "/health/live" else 503)
    if method == "HEAD":
        assert not ready.content


def test_health_is_empty_as_vllm_s_is() -> None:
    with serve(scripted_engine()) as endpoint:
        assert httpx.get(f"{endpoint.url}/health").content == b""


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no dual-stack IPv6")
def test_the_unspecified_ipv6_address_answers_on_ipv4_too() -> None:
    port = free_port()
    server = HttpServer(create_app(Serving()), listen(ServerSettings(host="::", port=port)))
    server.start()
    try:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/health/live").status_code == 200
    finally:
        server.stop()


@pytest.fixture
def web_server() -> Iterator[str]:
    settings = ServerSettings(port=free_port(), cors_origins=("https://chat.example.org",))
    server = HttpServer(create_app(Serving(), settings.cors_origins), listen(settings))
    server.start()
    yield f"http://127.0.0.1:{settings.port}"
    server.stop()


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("https://chat.example.org", "https://chat.example.org"), ("https://evil.example", None)],
)
def test_web_pages_of_the_named_origins_may_call(
    web_server: str, origin: str, allowed: str | None
) -> None:
    preflight = httpx.options(
        f"{web_server}/v1/chat/completions",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert preflight.headers.get("access-control-allow-origin") == allowed


def test_a_stream_tells_its_usage_in_every_chunk_if_asked() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = COMPLETION | {"stream": True, "stream_options": options, "max_tokens": 4}
    with serve(scripted_engine()) as endpoint:
        text = httpx.post(f"{endpoint.url}/v1/completions", json=body).text
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    counts = [
        httpx.Response(200, text=line).json()["usage"]["completion_tokens"] for line in lines[:-1]
    ]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 4)


def test_half_a_request_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_http, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(body_module, "_PART_SECONDS", 0.2)
    with serve(scripted_engine()) as endpoint:
        host, port = endpoint.url.removeprefix("http://").split(":")
        for sent in (b"", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection((host, int(port)), timeout=30) as client:
                client.sendall(sent)
                assert client.recv(1000) == b""
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_slow_answer_is_not_taken_for_half_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_http, "HEAD_SECONDS", 0.2)
    with serve(FakeEngine(answer_with(ANSWER), delay=0.3)) as endpoint:
        answer = httpx.post(f"{endpoint.url}/v1/completions", json=COMPLETION | {"max_tokens": 3})
    assert answer.status_code == 200


def test_every_reference_of_the_openapi_document_resolves() -> None:
    with serve(None) as endpoint:
        document = httpx.get(f"{endpoint.url}/openapi.json").json()

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            assert "$id" not in node
            assert "$defs" not in node
            yield from ([node["$ref"]] if "$ref" in node else [])
        for each in (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        ):
            yield from references(each)

    found = set(references(document))
    assert {"#/components/schemas/ChatBody", "#/components/schemas/CompletionBody"} <= found
    for reference in found:
        where = document
        for part in reference.removeprefix("#/").split("/"):
            where = where[part]
    for path in ("/v1/completions", "/v1/chat/completions"):
        responses = document["paths"][path]["post"]["responses"]
        assert {"200", "400", "404", "503"} <= responses.keys()
    metrics = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert list(metrics) == ["text/plain"]
