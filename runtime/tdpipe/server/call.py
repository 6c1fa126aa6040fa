"""Runs the generations of one HTTP request together, because a completion request may hold many prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tdpipe.core.request import FinishReason
from tdpipe.server.generation import Generation, ScoredToken, TextDelta


@dataclass(frozen=True, slots=True)
class Output:
    """The whole output of one prompt."""

    text: str
    tokens: tuple[ScoredToken, ...]
    """Output tokens with log-probabilities; empty if the request asked for none."""
    finish: FinishReason


class Call:
    """The generations of one request, in the order of its prompts. Callers must call `close` in the end."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations = tuple(generations)

    async def deltas(self) -> AsyncGenerator[tuple[int, TextDelta]]:
        """Yield (index of the prompt, delta) as deltas arrive. The first failure ends all generations."""
        if len(self._generations) == 1:
            async for delta in self._generations[0]:
                yield 0, delta
            return
        # Bounded, so that a slow client makes the engine's streams merge deltas instead of piling
        # them up here.
        queue: asyncio.Queue[tuple[int, TextDelta | Exception]] = asyncio.Queue(
            len(self._generations)
        )

        async def forward(index: int, generation: Generation) -> None:
            try:
                async for delta in generation:
                    await queue.put((index, delta))
            except Exception as error:  # raised again where the queue is read
                await queue.put((index, error))

        tasks = [
            asyncio.create_task(forward(*numbered)) for numbered in enumerate(self._generations)
        ]
        try:
            running = len(tasks)
            while running:
                index, item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                running -= item.finish is not None
                yield index, item
        finally:
            for task in tasks:
                task.cancel()

    async def outputs(self) -> tuple[Output, ...]:
        """Wait for the end, and return the outputs in the order of the prompts."""
        texts: list[list[str]] = [[] for _ in self._generations]
        tokens: list[list[ScoredToken]] = [[] for _ in self._generations]
        finishes = [FinishReason.ABORT for _ in self._generations]
        async with aclosing(self.deltas()) as deltas:
            async for index, delta in deltas:
                texts[index].append(delta.text)
                tokens[index].extend(delta.tokens)
                finishes[index] = delta.finish or finishes[index]
        return tuple(
            Output("".join(parts), tuple(scored), finish)
            for parts, scored, finish in zip(texts, tokens, finishes, strict=True)
        )

    def usage(self) -> dict[str, int]:
        """Token counts so far, in the shape of OpenAI's `usage`."""
        prompt = sum(generation.record.prompt_tokens for generation in self._generations)
        output = sum(generation.record.output_tokens for generation in self._generations)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
        }

    def close(self) -> None:
        """Abort the generations that have not ended. Idempotent."""
        for generation in self._generations:
            generation.close()
