"""The fields that completions and chat completions share."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tdpipe.core.sampling import SamplingParams
from tdpipe.server.schemas.body import Body, check_length, field_error

_MAX_BIASES = 4096
_MAX_STOPS = 16
_MAX_STOP_TOKENS = 1024
_MAX_STOP_CHARACTERS = 1024

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
LogprobCount = Annotated[int, Field(ge=0, le=20)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class TextFormat(Body):
    type: Literal["text"]
    """Free text. Structured output is not supported."""


class StreamOptions(Body):
    include_usage: bool | None = None
    """Send the token counts in a last chunk."""
    continuous_usage_stats: bool | None = None
    """Extension: send the token counts so far in every chunk. Only with `include_usage`."""


class GenerationBody(Body, ABC):
    """Fields of both endpoints. A field that is null has its default."""

    endpoint: ClassVar[str]
    """Name of the endpoint in metrics and the log."""
    id_prefix: ClassVar[str]
    """Prefix of the ids of answers."""
    prompt_field: ClassVar[str]
    """Name of the field that the prompt is made from."""
    continues_prompt: ClassVar[bool]
    """True if prompt and output are one text, so that the first token keeps a leading space."""
    default_output_limit: ClassVar[int | None]
    """Output tokens of a request that sets no limit; None is all that the prompt leaves."""

    model: str
    """Name of the served model, as listed by /v1/models."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy. Default 1, or 0 if generation_config.json has `"do_sample": false`."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Keep the likeliest tokens whose probabilities sum to this. Default 1."""
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """Keep this many likeliest tokens; 0, -1 and the default keep all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Drop tokens that are less likely than this share of the likeliest token's probability. Default 0."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    """Divides the logits of tokens that are in the prompt or output. Default 1."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted from the logits of tokens that are in the output. Default 0."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted from a token's logit once per occurrence in the output. Default 0."""
    logit_bias: dict[str, Bias] | None = None
    """Token id (as a string, because JSON has no other keys) to the number that is added to its logit."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Makes sampling repeatable. Default: a random seed."""
    stop: list[str] | None = None
    """A string, or up to 16, that end the output; they are not part of the text."""
    stop_token_ids: list[TokenId] | None = None
    """Extension: further tokens that end the output; they are not part of the text."""
    ignore_eos: bool | None = None
    """Extension: continue after the model's own end tokens, as benchmarks need."""
    stream: bool | None = None
    """Send the output as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """Only allowed with `stream`."""
    user: str | None = None
    """Identifier of the end user. It changes no output; a digest of it is kept in memory to predict output lengths."""
    n: Literal[1] | None = None
    """Only one output per prompt is supported."""

    @field_validator("stop", mode="before")
    @classmethod
    def _string_to_list(cls, value: object) -> object:
        check_length(value, _MAX_STOPS, "strings")
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _check_stops(cls, stops: list[str] | None) -> list[str] | None:
        if stops is not None and any(not 1 <= len(stop) <= _MAX_STOP_CHARACTERS for stop in stops):
            raise ValueError(f"each string must have 1 to {_MAX_STOP_CHARACTERS} characters")
        return stops

    @field_validator("stop_token_ids", mode="before")
    @classmethod
    def _check_stop_token_count(cls, value: object) -> object:
        check_length(value, _MAX_STOP_TOKENS, "tokens")
        return value

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _check_bias_count(cls, value: object) -> object:
        check_length(value, _MAX_BIASES, "tokens")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _check_bias_keys(cls, biases: dict[str, float] | None) -> dict[str, float] | None:
        for key in biases or {}:
            if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 2**31):
                raise ValueError(f"key {key[:20]!r} is not a token id; write it like '1234'")
        return biases

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise field_error("stream_options", 'only allowed with "stream": true')
        return self

    @property
    @abstractmethod
    def output_limit(self) -> tuple[str, int | None]:
        """Name of the field that limits the output, and its value; None if it is not given."""

    @property
    @abstractmethod
    def logprob_count(self) -> int | None:
        """Number of likeliest tokens to return with each token; None returns no log-probabilities."""

    @property
    def include_usage(self) -> bool:
        """True if a stream ends with a chunk of token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of a stream tells the usage so far."""
        return self.include_usage and bool(
            self.stream_options and self.stream_options.continuous_usage_stats
        )

    def named_tokens(self) -> dict[str, list[int]]:
        """Token ids that fields name, by field, to be checked against the vocabulary."""
        return {
            "logit_bias": [int(key) for key in self.logit_bias or {}],
            "stop_token_ids": list(self.stop_token_ids or ()),
        }

    def sampling(self, *, default_temperature: float) -> SamplingParams:
        """Create the sampling parameters, with every default filled in."""
        return SamplingParams(
            temperature=default_temperature if self.temperature is None else self.temperature,
            top_k=max(self.top_k or 0, 0),
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=tuple((int(key), bias) for key, bias in (self.logit_bias or {}).items()),
            seed=secrets.randbits(63) if self.seed is None else self.seed,
            logprobs=self.logprob_count,
        )
