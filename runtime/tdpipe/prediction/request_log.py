"""Log of finished requests, one JSON object per line, from which a model is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tdpipe.core.errors import SettingsError
from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.features import PromptFeatures, feature_vector
from tdpipe.prediction.tenant_history import TenantHistory
from tdpipe.prediction.text_features import extract_text_features
from tdpipe.prediction.training_rows import NO_MAX_TOKENS, TrainingRows

if TYPE_CHECKING:
    from pathlib import Path

_BYTES_PER_TOKEN = 4
"""Estimate for rows that do not give the number of prompt tokens."""

Tokens = Annotated[int, Field(ge=1, lt=NO_MAX_TOKENS)]


class LoggedRequest(BaseModel):
    """One finished request."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    prompt: str
    output_tokens: Tokens
    max_tokens: Tokens | None = None
    """An output of this length counts as cut off."""
    prompt_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0)] = 1.0
    tenant: str | None = None

    @model_validator(mode="after")
    def _check_max_tokens(self) -> Self:
        if self.max_tokens is not None and self.output_tokens > self.max_tokens:
            raise PydanticCustomError(
                "above_max_tokens",
                "output_tokens: {output} is more than max_tokens, {max_tokens}",
                {"output": self.output_tokens, "max_tokens": self.max_tokens},
            )
        return self

    @property
    def features(self) -> PromptFeatures:
        """Features that were known before the first output token."""
        estimate = max(1, len(self.prompt.encode(errors="replace")) // _BYTES_PER_TOKEN)
        return PromptFeatures(
            self.prompt_tokens or estimate,
            self.max_tokens or NO_MAX_TOKENS,
            SamplingParams(temperature=self.temperature),
            text=extract_text_features(self.prompt),
            tenant=self.tenant,
        )


def read_request_log(file: Path, option: str) -> TrainingRows:
    """Read a JSONL file whose lines are in the order in which the requests arrived.

    Args:
        file: Path of the file, in UTF-8; empty lines are skipped.
        option: Name of the command-line option that gives the path, for error messages.

    Raises:
        SettingsError: The file cannot be read, has no rows, or a line is invalid; the message names the line and the
            field.
    """
    tenants = TenantHistory()
    vectors, lengths, max_tokens = [], [], []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                request = _parse(line, f"{file} line {number}", option)
                features = request.features
                vectors.append(feature_vector(features, tenants))
                tenants.record(request.tenant, request.output_tokens)
                lengths.append(request.output_tokens)
                max_tokens.append(features.max_tokens)
    except OSError as error:
        raise SettingsError(
            option, f"{file}: {error.strerror}", "give a JSONL file that can be read"
        ) from error
    if not vectors:
        remedy = (
            'write one object per line, such as {"prompt": "Spell apple.", "output_tokens": 10}'
        )
        raise SettingsError(option, f"{file} has no rows", remedy)
    length = np.array(lengths, dtype=np.int64)
    limit = np.array(max_tokens, dtype=np.int64)
    return TrainingRows(np.stack(vectors), length, length < limit, limit)


def _parse(line: bytes, place: str, option: str) -> LoggedRequest:
    try:
        return LoggedRequest.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{field}: {first['msg']}" if field else first["msg"]
        if first["type"] == "extra_forbidden":
            problem = f"{field}: no such field"
        names = ", ".join(LoggedRequest.model_fields)
        remedy = f"fields are {names}; the first two are required"
        raise SettingsError(option, f"{place}: {problem}", remedy) from error
