"""Streamed requests to a cluster, and what their clients saw."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

_TIMEOUT_SECONDS = 600.0


@dataclass(slots=True)
class Stream:
    """What a client saw of one streamed request."""

    text: str = ""
    times: list[float] = field(default_factory=list)
    """Times at which text came, in seconds of the monotonic clock."""
    tokens: int | None = None
    """Number of output tokens according to the server; None if the stream did not end well."""
    error: dict[str, Any] | None = None

    @property
    def longest_gap(self) -> float:
        """Longest time between two pieces of text, in seconds."""
        return max((later - earlier for earlier, later in pairwise(self.times)), default=0.0)


async def stream_completion(
    http: httpx.AsyncClient, prompt: str, max_tokens: int, seen: Stream | None = None
) -> Stream:
    """Send a greedy request of exactly `max_tokens` output tokens, and read its stream to the end.

    Args:
        http: client of the endpoint.
        prompt: text of the prompt.
        max_tokens: number of output tokens.
        seen: what is filled while the stream comes. None makes a new one.
    """
    seen = Stream() if seen is None else seen
    body = {
        "model": "demo",
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with http.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            seen.error = json.loads(await response.aread())["error"]
            return seen
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                _note(json.loads(line.removeprefix("data: ")), seen)
    return seen


def _note(event: dict[str, Any], seen: Stream) -> None:
    if "error" in event:
        seen.error = event["error"]
        return
    if usage := event.get("usage"):
        seen.tokens = usage["completion_tokens"]
    for choice in event["choices"]:
        if choice["text"]:
            seen.text += choice["text"]
            seen.times.append(time.monotonic())


def client(url: str) -> httpx.AsyncClient:
    """Return a client without a limit on connections."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS, limits=limits)


def stream_all(url: str, prompts: list[str], max_tokens: int) -> list[Stream]:
    """Send all requests at once, and wait for the end of all streams."""

    async def run() -> list[Stream]:
        async with client(url) as http:
            streams = (stream_completion(http, prompt, max_tokens) for prompt in prompts)
            return list(await asyncio.gather(*streams))

    return asyncio.run(run())
