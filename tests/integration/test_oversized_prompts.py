"""A prompt that can never fit costs no more than one that does: most of it is neither rendered nor tokenized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tdpipe.server.served_model import ServedModel
from tdpipe.server.tokenizer import Tokenizer
from tests.support.endpoint import MODEL, scripted_engine, serve
from tests.support.tokenizer_kinds import build_hf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.endpoint import Endpoint

WORDS = "the " * 100_000


class RecordingBackend:
    """A tokenizer of the library, which records the sizes of the texts that it encodes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._backend = build_hf("byte_level").backend_tokenizer

    def encode(self, text: str, **options: Any) -> Any:  # noqa: ANN401 - as the library's
        self.sizes.append(len(text))
        return self._backend.encode(text, **options)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:  # noqa: ANN401
        self.sizes.extend(map(len, texts))
        return self._backend.encode_batch(texts, **options)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._backend, name)


@pytest.fixture
def served() -> Iterator[tuple[Endpoint, RecordingBackend]]:
    backend: Any = RecordingBackend()
    hf = build_hf("byte_level")
    tokenizer = Tokenizer(backend, hf.special_tokens_map, hf.chat_template)
    with serve(scripted_engine(), ServedModel(MODEL, tokenizer, frozenset())) as endpoint:
        yield endpoint, backend


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("completions", {"prompt": WORDS}),
        ("chat/completions", {"messages": [{"role": "user", "content": WORDS}]}),
    ],
)
def test_only_the_first_part_of_an_oversized_text_is_encoded(
    served: tuple[Endpoint, RecordingBackend], path: str, prompt: dict[str, Any]
) -> None:
    endpoint, backend = served
    answer = httpx.post(f"{endpoint.url}/v1/{path}", json={"model": MODEL} | prompt, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert max(backend.sizes) < len(WORDS) / 10


def test_messages_that_can_never_fit_are_not_rendered(
    served: tuple[Endpoint, RecordingBackend],
) -> None:
    endpoint, backend = served
    backend.sizes.clear()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}] * 10_000}
    answer = httpx.post(f"{endpoint.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages"
    assert backend.sizes == []
