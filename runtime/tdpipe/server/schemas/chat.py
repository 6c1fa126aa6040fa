"""The body of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import FailFast, Field, field_validator, model_validator

from tdpipe.server.chat_template import TemplateMessage
from tdpipe.server.schemas.body import Body, check_length, field_error
from tdpipe.server.schemas.common import GenerationBody, LogprobCount, TextFormat

Count = Annotated[int, Field(ge=1, lt=2**31)]
_MAX_MESSAGES = 2**14
_MAX_PARTS = 1024
_NO_TOOLS = "tools are not supported"
_ONLY_TEXT = "only text is supported"
_ANSWER_FIELD = "is a field of answers; leave it out"


class TextPart(Body):
    type: Literal["text"]
    """Only text is supported."""
    text: str

    unsupported: ClassVar[dict[str, str]] = {
        "image_url": _ONLY_TEXT,
        "video_url": _ONLY_TEXT,
        "audio_url": _ONLY_TEXT,
        "input_audio": _ONLY_TEXT,
        "file": _ONLY_TEXT,
    }


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant"]
    """Author of the message; `developer` is OpenAI's newer name for `system`."""
    content: Annotated[list[TextPart], FailFast()]
    """Text, or a list of text parts, which are joined by line breaks."""
    name: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Name of the author. The chat template decides whether the model sees it."""

    unsupported: ClassVar[dict[str, str]] = {
        "tool_calls": _NO_TOOLS,
        "tool_call_id": _NO_TOOLS,
        "function_call": _NO_TOOLS,
        "audio": _ONLY_TEXT,
        "refusal": _ANSWER_FIELD,
        "annotations": _ANSWER_FIELD,
        "reasoning_content": _ANSWER_FIELD,
        "reasoning": _ANSWER_FIELD,
    }

    @field_validator("content", mode="before", json_schema_input_type=str | list[TextPart])
    @classmethod
    def _string_to_part(cls, value: object) -> object:
        if isinstance(value, str):
            return [{"type": "text", "text": value}]
        if not isinstance(value, list):
            raise ValueError("give a string or a list of text parts")
        check_length(value, _MAX_PARTS, "parts")
        return value

    def for_template(self) -> TemplateMessage:
        """Convert the message to the form that chat templates read."""
        role = "system" if self.role == "developer" else self.role
        return TemplateMessage(role, tuple(part.text for part in self.content), self.name)


class ChatBody(GenerationBody):
    """A chat completion request."""

    endpoint = "chat"
    id_prefix = "chatcmpl"
    prompt_field = "messages"
    continues_prompt = False
    default_output_limit = None

    messages: Annotated[list[ChatMessage], Field(min_length=1), FailFast()]
    """The conversation so far."""
    store: Literal[False] | None = None
    """Answers are not stored."""
    service_tier: Literal["auto", "default"] | None = None
    """There is one tier of service."""
    modalities: list[Literal["text"]] | None = None
    """Only text is supported."""
    max_tokens: Count | None = None
    """Older name for `max_completion_tokens`."""
    max_completion_tokens: Count | None = None
    """Maximum number of output tokens. Default: what the prompt leaves of the context."""
    logprobs: bool | None = None
    """Return the log-probability of each output token."""
    top_logprobs: LogprobCount | None = None
    """Also return the log-probabilities of this many likeliest tokens. Only allowed with `logprobs`."""
    response_format: TextFormat | None = None
    """Only text is supported."""
    tool_choice: Literal["none", "auto"] | None = None
    """Tools are not supported, so there is nothing to choose."""

    elsewhere: ClassVar[dict[str, str]] = {"prompt": "belongs to completions; use messages"}
    unsupported: ClassVar[dict[str, str]] = {
        "tools": _NO_TOOLS,
        "functions": _NO_TOOLS,
        "function_call": _NO_TOOLS,
        "parallel_tool_calls": _NO_TOOLS,
        "audio": _ONLY_TEXT,
    }

    @field_validator("messages", mode="before")
    @classmethod
    def _check_message_count(cls, value: object) -> object:
        check_length(value, _MAX_MESSAGES, "messages")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise field_error("max_tokens", "differs from max_completion_tokens; give one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise field_error("top_logprobs", 'only allowed with "logprobs": true')
        return self

    @property
    def output_limit(self) -> tuple[str, int | None]:
        """Name of the field that limits the output, and its value; None if it is not given."""
        if self.max_tokens is not None:
            return "max_tokens", self.max_tokens
        return "max_completion_tokens", self.max_completion_tokens

    @property
    def logprob_count(self) -> int | None:
        """Number of likeliest tokens to return with each token; None returns no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None
