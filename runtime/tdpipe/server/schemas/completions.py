"""The body of /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tdpipe.server.schemas.common import GenerationBody, LogprobCount

Prompt = str | list[int]
_MAX_PROMPTS = 1024
_PROMPT_FORMS = "give a string, a list of strings, a list of token ids, or a list of such lists"


class CompletionBody(GenerationBody):
    """A completion request."""

    endpoint = "completions"
    id_prefix = "cmpl"
    prompt_field = "prompt"
    continues_prompt = True
    default_output_limit = 16

    prompt: list[Prompt]
    """Text or token ids, or a list of either. Each prompt becomes a choice of the answer."""
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """Maximum number of output tokens. Default 16."""
    logprobs: LogprobCount | None = None
    """Return log-probabilities of each output token and of this many likeliest tokens."""
    best_of: Literal[1] | None = None
    """Only 1 is supported."""
    echo: Literal[False] | None = None
    """The prompt cannot be part of the output."""
    suffix: None = None
    """Text after the output is not supported."""

    elsewhere: ClassVar[dict[str, str]] = {
        "max_completion_tokens": "belongs to chat completions; use max_tokens",
        "messages": "belongs to chat completions; use prompt",
        "top_logprobs": "belongs to chat completions; use logprobs",
        "prompt_logprobs": "log-probabilities of the prompt are not supported",
    }

    @field_validator(
        "prompt", mode="plain", json_schema_input_type=str | list[str] | list[int] | list[list[int]]
    )
    @classmethod
    def _to_list(cls, value: Any) -> list[Prompt]:  # noqa: ANN401 - whatever JSON holds
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list):
            raise ValueError(_PROMPT_FORMS)
        if not value:
            raise ValueError(f"is empty; {_PROMPT_FORMS}")
        if len(value) > _MAX_PROMPTS and not _are_token_ids(value):
            raise ValueError(f"has {len(value)} prompts; give at most {_MAX_PROMPTS} in a request")
        if _are_token_ids(value):
            return [value]
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(item, list) and _are_token_ids(item) for item in value):
            return value
        raise ValueError(f"mixes kinds; {_PROMPT_FORMS}")

    @field_validator("logprobs", mode="before")
    @classmethod
    def _false_to_none(cls, value: object) -> object:
        return None if value is False else value

    @property
    def output_limit(self) -> tuple[str, int | None]:
        """Name of the field that limits the output, and its value; None if it is not given."""
        return "max_tokens", self.max_tokens

    @property
    def logprob_count(self) -> int | None:
        """Number of likeliest tokens to return with each token; None returns no log-probabilities."""
        return self.logprobs


def _are_token_ids(items: list[Any]) -> bool:
    if not all(type(item) is int for item in items):
        return False
    if (lowest := min(items, default=0)) < 0:
        raise ValueError(f"holds the token id {lowest}; ids are 0 or more")
    return True
