"""How much a pipeline holds at once.

Pipeline, scheduler, engine and server all decide by these numbers, so they share one type and one check of a request.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdpipe.core.errors import RequestError


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room for KV cache and sequences, the same on every stage."""

    blocks: int
    """KV blocks: as many as the stage with the least room has."""
    block_size: int
    """Tokens in a block."""
    slots: int
    """Sequences that may hold KV at once."""
    max_context: int
    """Tokens of prompt and output together at most; the blocks may hold fewer."""

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.blocks * self.block_size

    @property
    def longest_sequence(self) -> int:
        """Tokens of prompt and output together that a request may have."""
        return min(self.max_context, self.kv_tokens)

    def check(self, prompt_tokens: int, max_tokens: int) -> None:
        """Refuse a request that could not run even alone.

        Raises:
            RequestError: the request is empty, or longer than the context or the KV cache.
        """
        longest = prompt_tokens + max_tokens
        if prompt_tokens < 1 or max_tokens < 1:
            raise RequestError("a request needs a prompt token and max_tokens of at least 1")
        if longest > self.max_context:
            raise RequestError(
                f"prompt ({prompt_tokens} tokens) and max_tokens ({max_tokens}) exceed the context "
                f"of {self.max_context} tokens; shorten one of them",
                "max_tokens",
            )
        if longest > self.kv_tokens:
            raise RequestError(
                f"prompt and max_tokens need {longest} tokens of KV cache, which holds "
                f"{self.kv_tokens}; lower max_tokens or raise cache.memory",
                "max_tokens",
            )
