"""The fields that completions and chat completions share."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tdpipe.core.sampling import SamplingParams
from tdpipe.server.schemas.body import Body, field_error

_MOST_STOPS = 16
_LONGEST_STOP = 1024

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
LogprobCount = Annotated[int, Field(ge=0, le=20)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class TextFormat(Body):
    type: Literal["text"]
    """Free text; no grammar is enforced."""


class StreamOptions(Body):
    include_usage: bool | None = None
    """Send the token counts in a last chunk."""


class GenerationBody(Body, ABC):
    """Fields of both endpoints. `null` stands for the default everywhere."""

    endpoint: ClassVar[str]
    """Name in metrics and the log."""
    id_prefix: ClassVar[str]
    """How ids of its answers begin."""
    prompt_field: ClassVar[str]
    """Which field the prompt is made of."""
    continues_prompt: ClassVar[bool]
    """Whether prompt and output are one text, so that the first token keeps a leading space."""
    default_output_limit: ClassVar[int | None]
    """Output tokens where the request does not say; None is whatever the prompt leaves."""

    model: str
    """Name of the served model, as in /v1/models."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy. Default 1, or 0 where generation_config.json says `"do_sample": false`."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Keep the likeliest tokens that sum to this probability. Default 1."""
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """Keep this many likeliest tokens; 0, -1 and the default keep all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Drop tokens less likely than this share of the likeliest. Default 0."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    """Divides the logits of tokens in prompt or output. Default 1."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted from the logits of tokens in the output. Default 0."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted once per occurrence in the output. Default 0."""
    logit_bias: dict[str, Bias] | None = None
    """Token id (as a string, for JSON has no other keys) to what is added to its logit."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Makes sampling repeatable. Default: a random one."""
    stop: list[str] | None = None
    """A string, or up to 16, that end the output; they are not part of the text."""
    stop_token_ids: list[TokenId] | None = None
    """Extension: more tokens that end the output; they are not part of the text."""
    ignore_eos: bool | None = None
    """Extension: go on after the model's own end tokens, as benchmarks need."""
    stream: bool | None = None
    """Send the output as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    user: str | None = None
    """Whose request it is. It changes no output; a digest of it is kept in memory to predict lengths by."""
    n: Literal[1] | None = None
    """Only one output per prompt is supported."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _stops_in_bounds(cls, stops: list[str] | None) -> list[str] | None:
        if stops is not None:
            if len(stops) > _MOST_STOPS:
                raise ValueError(f"has {len(stops)} strings; give at most {_MOST_STOPS}")
            if any(not 1 <= len(stop) <= _LONGEST_STOP for stop in stops):
                raise ValueError(f"each string must have 1 to {_LONGEST_STOP} characters")
        return stops

    @field_validator("logit_bias")
    @classmethod
    def _keys_are_tokens(cls, biases: dict[str, float] | None) -> dict[str, float] | None:
        for key in biases or {}:
            if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 2**31):
                raise ValueError(f"key {key[:20]!r} is no token id; write it like '1234'")
        return biases

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise field_error("stream_options", 'only allowed with "stream": true')
        return self

    @property
    @abstractmethod
    def output_limit(self) -> tuple[str, int | None]:
        """(field, output tokens at most if that field is given)."""

    @property
    @abstractmethod
    def logprob_count(self) -> int | None:
        """Likeliest tokens to return with each token; None returns no log-probabilities."""

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def named_tokens(self) -> dict[str, list[int]]:
        """Token ids by the field that names them, to be checked against the vocabulary."""
        return {
            "logit_bias": [int(key) for key in self.logit_bias or {}],
            "stop_token_ids": list(self.stop_token_ids or ()),
        }

    def sampling(self, *, default_temperature: float) -> SamplingParams:
        """The parameters with every default filled in."""
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
