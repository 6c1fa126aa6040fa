"""The profile file: what steps take on each stage of one pipeline, as it was measured.

`tdpipe profile` writes it once per model and machine; the engine, the simulator and the paced engine read it. So it
says what it was measured of, and whoever reads it can refuse what is not about his pipeline.
"""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tdpipe.core.errors import SettingsError
from tdpipe.core.latencies import Latencies
from tdpipe.core.model_sizes import ModelSizes

if TYPE_CHECKING:
    from pathlib import Path

_DIGITS = 5
"""Significant ones that are written: no clock is better."""
_REMEDY = "give a file that `tdpipe profile` wrote"

Seconds = Annotated[float, Field(ge=0.0)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Provenance(_Part):
    """What was measured, when and with what."""

    date: datetime.date
    tdpipe: str
    """Its version."""
    model: ModelSizes
    devices: tuple[str, ...]
    """[stages] what each computed on."""
    dtype: str
    """Data type of weights, activations and KV cache, as torch names it."""
    partition: tuple[int, ...]
    """[stages] layers."""
    threads_per_stage: int
    """CPU threads; of no meaning on GPUs."""
    kv_tokens: int
    """Number of tokens that the KV cache held."""


class ProfiledStage(_Part):
    """What a step takes on one stage. Times beyond the last point grow in proportion to it."""

    tokens: tuple[int, ...] = Field(min_length=1)
    """Batch tokens, ascending from at least 1."""
    seconds: tuple[float, ...] = Field(min_length=1)
    """Seconds of a step with that many tokens, without earlier context and without sampling."""
    per_kv_token: Seconds
    """Seconds more for each KV token that is read."""
    per_sampled_token: Seconds = 0.0
    """Seconds more for each token that is sampled: the last stage's head."""

    @model_validator(mode="after")
    def _is_a_table(self) -> ProfiledStage:
        if len(self.tokens) != len(self.seconds):
            problem = f"{len(self.tokens)} tokens stand beside {len(self.seconds)} seconds"
            raise PydanticCustomError("table", "{problem}", {"problem": problem})
        before = 0
        for tokens in self.tokens:
            if tokens <= before:
                problem = f"tokens must ascend from 1, but {tokens} follows {before}"
                raise PydanticCustomError("table", "{problem}", {"problem": problem})
            before = tokens
        if min(self.seconds) <= 0.0:
            raise PydanticCustomError("table", "seconds must be above 0")
        return self


class ProfiledMixing(_Part):
    """What a step pays for holding both prefill and decode."""

    seconds: Seconds = 0.0
    """Seconds that a mixed step adds on each stage."""
    decode_context: float = Field(default=1.0, ge=1.0)
    """Factor on the reading of KV."""


class FitError(_Part):
    """How far the file's figures are off the median times of equal steps, relative to these, over all stages."""

    mean: float
    worst: float


class Profile(_Part):
    """The whole file."""

    version: Literal[1] = 1
    """Version of this schema."""
    provenance: Provenance
    stages: tuple[ProfiledStage, ...] = Field(min_length=1)
    mixing: ProfiledMixing = ProfiledMixing()
    chunk_tile: int = Field(default=128, ge=1)
    """Tokens of a prefill chunk that read the sequence's earlier KV once; a longer chunk reads it again."""
    latencies: Latencies = Latencies()
    fit_error: FitError | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Profile:
        for name in ("partition", "devices"):
            count = len(getattr(self.provenance, name))
            if count != len(self.stages):
                problem = f"provenance.{name} is of {count} stages, the file has {len(self.stages)}"
                raise PydanticCustomError("stages", "{problem}", {"problem": problem})
        return self


def device_list(devices: tuple[str, ...]) -> str:
    """Names of the stages' devices, each once, for people."""
    return ", ".join(dict.fromkeys(devices))


def read_profile_file(path: Path, option: str) -> Profile:
    """Read a profile, YAML or JSON.

    Args:
        path: of the file.
        option: what named it, for messages.

    Raises:
        SettingsError: it cannot be read, or is no such profile.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError(option, f"{path}: {error.strerror}", _REMEDY) from error
    except yaml.YAMLError as error:
        problem = str(error).splitlines()[0]
        raise SettingsError(option, f"{path}: {problem}", _REMEDY) from error
    if not isinstance(content, dict):
        raise SettingsError(option, f"{path} holds no profile", _REMEDY)
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        what = {"extra_forbidden": "unknown", "missing": "missing"}.get(first["type"], first["msg"])
        problem = f"{path}: {field}: {what}" if field else f"{path}: {what}"
        raise SettingsError(option, problem, _REMEDY) from error


def write_profile_file(path: Path, profile: Profile) -> None:
    """Write a profile: JSON if the name ends so, else YAML.

    Raises:
        SettingsError: the file cannot be written.
    """
    content = _rounded(profile.model_dump(mode="json", exclude_none=True))
    if path.suffix == ".json":
        text = json.dumps(content, indent=1) + "\n"
    else:
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    try:
        path.write_text(text)
    except OSError as error:
        remedy = "give a path that can be written"
        raise SettingsError("--output", f"{path}: {error.strerror}", remedy) from error


def _rounded(value: Any) -> Any:  # noqa: ANN401 - of JSON
    match value:
        case float():
            return float(f"{value:.{_DIGITS}g}")
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list():
            return [_rounded(each) for each in value]
    return value
