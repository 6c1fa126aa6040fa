"""Turns the prompts of a body into token ids, off the event loop.

A prompt that can never fit is refused before it costs more than one that does: by the number of its messages, or by
the tokens of its first part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tdpipe.core.errors import RequestError
from tdpipe.prediction.text_features import TextFeatures, extract_text_features
from tdpipe.server.chat_template import TemplateMessage
from tdpipe.server.errors import ApiError
from tdpipe.server.tokenizer import Tokenizer, TooManyTokensError


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPrompt:
    """A prompt as the engine takes it."""

    tokens: tuple[int, ...]
    text: TextFeatures | None = None
    """Features of the prompt's text for the length predictor; None if the client sent token ids."""


def tokenize_texts(
    prompts: Sequence[str | Sequence[int]],
    tokenizer: Tokenizer,
    max_tokens: int,
    cancelled: Callable[[], bool],
) -> list[TokenizedPrompt]:
    """Tokenize the prompts of a completion.

    Args:
        prompts: texts, or token ids that are taken as they are.
        tokenizer: the model's.
        max_tokens: how many tokens can fit at most.
        cancelled: tells whether nobody waits any more.

    Raises:
        ApiError: 400, a text has more tokens than can fit.
        RequestError: a prompt is empty.
        CancelledEncodingError: nobody waits any more.
    """
    tokenized = []
    for prompt in prompts:
        if isinstance(prompt, str):
            encode = partial(tokenizer.encode, prompt, max_tokens, cancelled)
            tokens = _bounded(encode, max_tokens, "prompt")
            tokenized.append(TokenizedPrompt(tokens, extract_text_features(prompt)))
        else:
            tokenized.append(TokenizedPrompt(tuple(prompt)))
        if not tokenized[-1].tokens:
            raise RequestError("prompt: is empty; give at least one token", "prompt")
    return tokenized


def tokenize_chat(
    messages: Sequence[TemplateMessage],
    tokenizer: Tokenizer,
    max_tokens: int,
    cancelled: Callable[[], bool],
) -> TokenizedPrompt:
    """Tokenize a conversation.

    Args:
        messages: the conversation.
        tokenizer: the model's.
        max_tokens: how many tokens can fit at most.
        cancelled: tells whether nobody waits any more.

    Raises:
        ApiError: 400, the conversation has more tokens than can fit.
        RequestError: there is no chat template, or it refuses the messages or makes no token of them.
        CancelledEncodingError: nobody waits any more.
    """
    encode = partial(tokenizer.encode_chat, messages, max_tokens, cancelled)
    tokens = _bounded(encode, max_tokens, "messages")
    if not tokens:
        raise RequestError("messages: the chat template makes no token of them", "messages")
    return TokenizedPrompt(
        tokens, extract_text_features("\n".join(message.text for message in messages))
    )


def check_message_count(messages: int, max_tokens: int) -> None:
    """Refuse a conversation with more messages than tokens can fit, before its template is rendered.

    Raises:
        ApiError: 400.
    """
    if messages > max_tokens:
        raise _too_long(f"{messages} messages, of at least one token each", max_tokens, "messages")


def _bounded(encode: Callable[[], tuple[int, ...]], max_tokens: int, field: str) -> tuple[int, ...]:
    try:
        return encode()
    except TooManyTokensError as error:
        raise _too_long(f"more than {error.tokens} tokens", max_tokens, field) from error


def _too_long(size: str, max_tokens: int, field: str) -> ApiError:
    message = (
        f"{field}: the prompt has {size}, but prompt and output together may have {max_tokens} tokens at most; "
        "shorten the prompt"
    )
    return ApiError(400, message, param=field, code="context_length_exceeded")
