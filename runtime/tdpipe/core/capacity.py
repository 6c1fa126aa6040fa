"""Room for KV cache and sequences in a pipeline.

Pipeline, scheduler, engine and server all decide by these numbers, so they share one type and one check of a request.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdpipe.core.errors import RequestError


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room for KV cache and sequences, the same on every stage."""

    blocks: int
    """Number of KV blocks, which is that of the stage with the least room."""
    block_size: int
    """Number of tokens in a block."""
    slots: int
    """Number of sequences that may hold KV at the same time."""
    max_context: int
    """Maximum number of tokens of prompt and output together; the blocks may hold fewer."""

    @property
    def kv_tokens(self) -> int:
        """Number of tokens that the KV cache holds."""
        return self.blocks * self.block_size

    @property
    def longest_sequence(self) -> int:
        """Maximum number of tokens of prompt and output together that a request may have."""
        return min(self.max_context, self.kv_tokens)

    def check(self, prompt_tokens: int, max_tokens: int) -> None:
        """Refuse a request that could not run even alone.

        Args:
            prompt_tokens: number of tokens in the prompt.
            max_tokens: maximum number of output tokens.

        Raises:
            RequestError: the request is empty, or longer than the context or the KV cache. Its `param` is `prompt`
                if the prompt leaves no room for an output, else `max_tokens`.
        """
        if prompt_tokens < 1 or max_tokens < 1:
            raise RequestError(
                "a request needs at least one prompt token and max_tokens of at least 1"
            )
        longest = self.longest_sequence
        max_output = longest - prompt_tokens
        if max_tokens <= max_output:
            return
        limit, remedy = "context", ""
        if self.kv_tokens < self.max_context:
            limit, remedy = "KV cache", ", or raise the server's cache.memory or cache.blocks"
        if max_output < 1:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens, but the {limit} holds {longest} including at least one "
                f"output token; shorten the prompt{remedy}",
                "prompt",
            )
        raise RequestError(
            f"the prompt has {prompt_tokens} tokens and up to {max_tokens} output tokens are requested, "
            f"{prompt_tokens + max_tokens} together, but the {limit} holds {longest}; "
            f"shorten the prompt or ask for at most {max_output} output tokens{remedy}",
            "max_tokens",
        )
