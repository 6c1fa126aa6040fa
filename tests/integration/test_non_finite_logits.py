"""A request for which the model computes NaN ends in an error that says so, and no other request notices."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from tdpipe.controller.start import plan_stages, start_engine
from tdpipe.core.settings import load_settings
from tests.support.checkpoints import Reference, tiny_checkpoint
from tests.support.endpoint import MODEL, Endpoint, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

POISON = 7
"""Token whose embedding is NaN."""
WHOLE: dict[str, Any] = {}
SCORED: dict[str, Any] = {"logprobs": 2}
STREAMED: dict[str, Any] = {"stream": True}
SAMPLED: dict[str, Any] = {"temperature": 1.0, "presence_penalty": 0.5, "seed": 1}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoint, list[int], str]]:
    """An endpoint, a prompt without the poison, and the text of its greedy output."""
    path = tiny_checkpoint(tmp_path_factory.mktemp("poisoned"))
    ((prompt, _),) = Reference(path).prompts([9], 12, seed=3)
    assert POISON not in prompt
    weights = load_file(path / "model.safetensors")
    weights["model.embed_tokens.weight"][POISON] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    settings = load_settings(
        flags={
            "model": {"path": path, "device": "cpu"},
            "pipeline": {"stages": 2, "host": "in_process"},
            "cache": {"blocks": 64},
        }
    )
    engine = start_engine(settings, plan_stages(settings), lambda _: None)
    with serve(engine) as endpoint:
        text = complete(endpoint, prompt).json()["choices"][0]["text"]
        yield endpoint, prompt, text


def complete(endpoint: Endpoint, prompt: list[int], **change: Any) -> httpx.Response:  # noqa: ANN401
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": 12,
        "temperature": 0,
        "ignore_eos": True,
    }
    return httpx.post(f"{endpoint.url}/v1/completions", json=body | change, timeout=60)


def error_in(response: httpx.Response) -> dict[str, Any]:
    if response.headers["content-type"].startswith("text/event-stream"):
        assert response.status_code == 200
        *_, last = response.text.strip().split("\n\n")
        error: dict[str, Any] = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert response.status_code == 500
        error = response.json()["error"]
    return error


@pytest.mark.parametrize("change", [WHOLE, SCORED, STREAMED, STREAMED | SCORED, SAMPLED], ids=str)
def test_the_error_says_what_is_wrong_however_the_output_is_asked_for(
    poisoned: tuple[Endpoint, list[int], str], change: dict[str, Any]
) -> None:
    endpoint, prompt, text = poisoned
    before = count(endpoint)
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(complete, endpoint, prompt) for _ in range(3)]
        failed = complete(endpoint, [*prompt, POISON], **change)
    error = error_in(failed)
    assert error["code"] == "non_finite_logits"
    assert "not finite" in error["message"]
    assert "model.dtype" in error["message"]
    assert [other.result().json()["choices"][0]["text"] for other in others] == [text] * 3
    assert count(endpoint) == before + 1


def count(endpoint: Endpoint) -> float:
    lines = httpx.get(f"{endpoint.url}/metrics").text.splitlines()
    (line,) = [each for each in lines if each.startswith("tdpipe_non_finite_logits_total ")]
    return float(line.rpartition(" ")[2])
