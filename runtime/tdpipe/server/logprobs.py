"""Puts log-probabilities into OpenAI's shapes, which differ between the two endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdpipe.server.generation import ScoredToken
from tdpipe.server.tokenizer import Tokenizer

_MIN_LOGPROB = -9999.0  # replaces minus infinity, which JSON cannot represent


def completion_logprobs(tokens: Sequence[ScoredToken], tokenizer: Tokenizer) -> dict[str, Any]:
    """Build the `logprobs` of a completion: parallel lists with one entry per token."""
    return {
        "text_offset": [scored.offset for scored in tokens],
        "tokens": [tokenizer.token_text(scored.token) for scored in tokens],
        "token_logprobs": [max(scored.logprobs.logprob, _MIN_LOGPROB) for scored in tokens],
        "top_logprobs": [_by_text(scored, tokenizer) for scored in tokens],
    }


def chat_logprobs(tokens: Sequence[ScoredToken], tokenizer: Tokenizer) -> dict[str, Any]:
    """Build the `logprobs` of a chat completion: a list with one object per token."""
    content = [
        _entry(scored.token, scored.logprobs.logprob, tokenizer)
        | {
            "top_logprobs": [
                _entry(token, logprob, tokenizer)
                for token, logprob in zip(
                    scored.logprobs.top_tokens, scored.logprobs.top_logprobs, strict=True
                )
            ]
        }
        for scored in tokens
    ]
    return {"content": content, "refusal": None}


def _by_text(scored: ScoredToken, tokenizer: Tokenizer) -> dict[str, float]:
    own = scored.logprobs
    likeliest = {
        tokenizer.token_text(token): max(logprob, _MIN_LOGPROB)
        for token, logprob in zip(own.top_tokens, own.top_logprobs, strict=True)
    }
    # The sampled token is always included; it comes last if it is not among the likeliest.
    return likeliest | {tokenizer.token_text(scored.token): max(own.logprob, _MIN_LOGPROB)}


def _entry(token: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "token": tokenizer.token_text(token),
        "logprob": max(logprob, _MIN_LOGPROB),
        "bytes": list(tokenizer.token_bytes(token)),
    }
