"""Prompts with the lengths of their outputs, one JSON object a line, as training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tdpipe.core.errors import SettingsError
from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.input_vector import input_vector
from tdpipe.prediction.tenants import TenantHistory
from tdpipe.prediction.text_numbers import describe_text
from tdpipe.prediction.training_rows import NO_BOUND, TrainingRows

if TYPE_CHECKING:
    from pathlib import Path

_BYTES_PER_TOKEN = 4
"""Where a row does not say how many tokens its prompt has."""

Tokens = Annotated[int, Field(ge=1, lt=NO_BOUND)]


class Row(BaseModel):
    """A finished request."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    prompt: str
    output_tokens: Tokens
    max_tokens: Tokens | None = None
    """An output of as many tokens counts as cut off."""
    prompt_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0)] = 1.0
    tenant: str | None = None

    @model_validator(mode="after")
    def _is_within_its_bound(self) -> Self:
        if self.max_tokens is not None and self.output_tokens > self.max_tokens:
            raise PydanticCustomError(
                "beyond_bound",
                "output_tokens: {output} is more than max_tokens, {bound}",
                {"output": self.output_tokens, "bound": self.max_tokens},
            )
        return self

    @property
    def features(self) -> PromptFeatures:
        """What would have been known before the output."""
        guessed = max(1, len(self.prompt.encode(errors="replace")) // _BYTES_PER_TOKEN)
        return PromptFeatures(
            self.prompt_tokens or guessed,
            self.max_tokens or NO_BOUND,
            SamplingParams(temperature=self.temperature),
            text=describe_text(self.prompt),
            tenant=self.tenant,
        )


def read_rows(file: Path, option: str) -> TrainingRows:
    """The rows of a JSONL file, taken to be in the order in which the requests came.

    Args:
        file: UTF-8; empty lines do not count.
        option: which named the file, for errors.

    Raises:
        SettingsError: the file cannot be read, or a line is no such row; it names the line and the field.
    """
    tenants = TenantHistory()
    vectors, lengths, bounds = [], [], []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = _read(line, f"{file} line {number}", option)
                features = row.features
                vectors.append(input_vector(features, tenants))
                tenants.note(row.tenant, row.output_tokens)
                lengths.append(row.output_tokens)
                bounds.append(features.max_tokens)
    except OSError as error:
        raise SettingsError(
            option, f"{file}: {error.strerror}", "give a JSONL file that can be read"
        ) from error
    if not vectors:
        raise SettingsError(option, f"{file} has no rows", 'write a line like {"prompt": ...}')
    length, bound = np.array(lengths, dtype=np.int64), np.array(bounds, dtype=np.int64)
    return TrainingRows(np.stack(vectors), length, length < bound, bound)


def _read(line: bytes, place: str, option: str) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{field}: {first['msg']}" if field else first["msg"]
        if first["type"] == "extra_forbidden":
            problem = f"{field}: no such field"
        remedy = f"fields are {', '.join(Row.model_fields)}; the first two must be there"
        raise SettingsError(option, f"{place}: {problem}", remedy) from error
