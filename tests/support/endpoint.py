"""A real HTTP server over an engine, for tests that speak HTTP."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.settings import ServerSettings
from tdpipe.server.app import create_app
from tdpipe.server.http_server import HttpServer, listen
from tdpipe.server.served_model import ServedModel
from tdpipe.server.serving import Service, Serving
from tests.support.fake_engine import FakeEngine, Script
from tests.support.tokenizer_kinds import build_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.server.engine_port import EnginePort

MODEL = "scripted"
QUESTION = "Count from 4 to 11."
ANSWER = "4, 5, 6, 7, 8, 9, 10, 11"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served that answers `question` with `answer` when it decodes greedily."""

    url: str
    model: str
    question: str
    answer: str
    serving: Serving


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def scripted_model(kind: str = "byte_level", *, chat: bool = True) -> ServedModel:
    """A model with one of the small tokenizers."""
    tokenizer = build_tokenizer(kind, chat=chat)
    assert tokenizer.eos_token_id is not None
    return ServedModel(MODEL, tokenizer, frozenset({tokenizer.eos_token_id}))


def answer_with(text: str, kind: str = "byte_level") -> Script:
    """A script that answers every prompt with `text` and the end token."""
    tokenizer = build_tokenizer(kind)
    assert tokenizer.eos_token_id is not None
    tokens = [*tokenizer.encode(text), tokenizer.eos_token_id]
    return lambda _prompt: tokens


def scripted_engine() -> FakeEngine:
    """An engine that knows the answer."""
    return FakeEngine(answer_with(ANSWER))


@contextmanager
def serve(engine: EnginePort | None, model: ServedModel | None = None) -> Iterator[Endpoint]:
    """Serve `model` with `engine` on a free port; without an engine the server is never ready."""
    model = model or scripted_model()
    settings = ServerSettings(port=free_port())
    serving = Serving()
    server = HttpServer(create_app(serving), listen(settings))
    server.start()
    try:
        if engine is not None:
            serving.ready(Service(engine, model))
        url = f"http://{settings.host}:{settings.port}"
        yield Endpoint(url, model.name, QUESTION, ANSWER, serving)
    finally:
        serving.stop()
        if engine is not None:
            engine.close()
        server.stop()
