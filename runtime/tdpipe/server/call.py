"""All generations of one HTTP request: a completion call may hold many prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tdpipe.core.request import FinishReason
from tdpipe.server.generation import Generation, ScoredToken, TextDelta


@dataclass(frozen=True, slots=True)
class Output:
    """One prompt's whole output."""

    text: str
    tokens: tuple[ScoredToken, ...]
    """Only tokens whose log-probabilities were asked for."""
    finish: FinishReason


class Call:
    """The generations of a call, in the order of its prompts. `close` must be called in the end."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations = tuple(generations)

    async def deltas(self) -> AsyncGenerator[tuple[int, TextDelta]]:
        """(index of the prompt, delta) as they come; the first failure ends all."""
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
        """The whole outputs, in the order of the prompts."""
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
        """OpenAI's token counts, so far."""
        prompt = sum(generation.record.prompt_tokens for generation in self._generations)
        output = sum(generation.record.output_tokens for generation in self._generations)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
        }

    def close(self) -> None:
        """Abort what has not ended; idempotent."""
        for generation in self._generations:
            generation.close()
