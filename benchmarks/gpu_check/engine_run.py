"""Generates with an engine that is started for a few requests only, with log-probabilities on request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.controller.start import plan_stages, start_engine
from tdpipe.core.sampling import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.controller.engine import Engine
    from tdpipe.core.sampling import TokenLogprobs
    from tdpipe.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Generated:
    """Greedy output of one request."""

    tokens: list[int]
    logprobs: list[TokenLogprobs]
    """One entry per token; empty if log-probabilities were not requested."""


def generate(
    settings: Settings, prompts: Sequence[Sequence[int]], count: int, logprobs: int | None = None
) -> list[Generated]:
    """Return the greedy output of `count` tokens for each prompt; all are submitted at once.

    Args:
        settings: All settings.
        prompts: Token ids.
        count: Number of output tokens of each prompt.
        logprobs: Number of likeliest tokens whose log-probabilities are returned at each position.

    Raises:
        TDPipeError: the engine does not start, or it fails.
    """
    engine = start_engine(settings, plan_stages(settings), lambda _: None)
    try:
        return asyncio.run(_serve(engine, prompts, count, SamplingParams(logprobs=logprobs)))
    finally:
        engine.close()


async def _serve(
    engine: Engine, prompts: Sequence[Sequence[int]], count: int, sampling: SamplingParams
) -> list[Generated]:
    streams = [
        engine.submit(tuple(prompt), count, sampling, frozenset(), f"request {number}")
        for number, prompt in enumerate(prompts)
    ]
    outputs = []
    for stream in streams:
        output = Generated([], [])
        async for delta in stream:
            output.tokens.extend(delta.tokens)
            output.logprobs.extend(each for each in delta.logprobs if each is not None)
        outputs.append(output)
    return outputs
