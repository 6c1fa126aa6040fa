"""The profile file, which holds measured times of steps on each stage of one pipeline.

`tdpipe profile` writes it once per model and machine; the engine, the simulator and the paced engine read it. It also
holds what it was measured on, so that a reader can refuse the profile of another pipeline.
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

_SIGNIFICANT_DIGITS = 5
"""Significant digits that are written; no clock is more exact."""
_REMEDY = "give a file that `tdpipe profile` wrote"

Seconds = Annotated[float, Field(ge=0.0)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Provenance(_Part):
    """The measured model and pipeline, with date and version."""

    date: datetime.date
    tdpipe: str
    """Version of tdpipe that measured."""
    model: ModelSizes
    devices: tuple[str, ...]
    """[stages] name of the device that each stage computed on."""
    dtype: str
    """Data type of weights, activations and KV cache, as torch names it."""
    partition: tuple[int, ...]
    """[stages] number of layers of each stage."""
    threads_per_stage: int
    """CPU threads of each stage; it has no meaning on GPUs."""
    kv_tokens: int
    """Number of tokens that the KV cache held."""


class ProfiledStage(_Part):
    """Time that a step takes on one stage. Beyond the last point, times grow in proportion to it."""

    tokens: tuple[int, ...] = Field(min_length=1)
    """[points] numbers of batch tokens, ascending from at least 1."""
    seconds: tuple[float, ...] = Field(min_length=1)
    """Seconds of a step with that many tokens, without earlier context and without sampling."""
    per_kv_token: Seconds
    """Additional seconds for each KV token that is read."""
    per_sampled_token: Seconds = 0.0
    """Additional seconds for each token that is sampled, which the head of the last stage takes."""

    @model_validator(mode="after")
    def _check_table(self) -> ProfiledStage:
        if len(self.tokens) != len(self.seconds):
            problem = f"tokens has {len(self.tokens)} entries and seconds has {len(self.seconds)}"
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
    """Additional cost of a step that contains both prefill and decode."""

    seconds: Seconds = 0.0
    """Seconds that a mixed step adds on each stage."""
    decode_context: float = Field(default=1.0, ge=1.0)
    """Factor on the time that reading KV takes."""


class FitError(_Part):
    """Relative difference between the times that the file gives and the measured medians of equal steps."""

    mean: float
    worst: float


class Profile(_Part):
    """Content of a profile file."""

    version: Literal[1] = 1
    """Version of this schema."""
    provenance: Provenance
    stages: tuple[ProfiledStage, ...] = Field(min_length=1)
    mixing: ProfiledMixing = ProfiledMixing()
    chunk_tile: int = Field(default=128, ge=1)
    """Tokens of a prefill chunk that share one reading of the sequence's earlier KV; a longer chunk reads it again."""
    latencies: Latencies = Latencies()
    fit_error: FitError | None = None

    @model_validator(mode="after")
    def _check_stages(self) -> Profile:
        for name in ("partition", "devices"):
            count = len(getattr(self.provenance, name))
            if count != len(self.stages):
                problem = (
                    f"provenance.{name} has {count} stages, and the file has {len(self.stages)}"
                )
                raise PydanticCustomError("stages", "{problem}", {"problem": problem})
        return self


def device_list(devices: tuple[str, ...]) -> str:
    """Join the names of the stages' devices, each once, into readable text."""
    return ", ".join(dict.fromkeys(devices))


def read_profile_file(path: Path, option: str) -> Profile:
    """Read a profile from a YAML or JSON file.

    Args:
        path: path of the file.
        option: option or setting that named the file, for messages.

    Raises:
        SettingsError: the file cannot be read, or is not a profile.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError(option, f"{path}: {error.strerror}", _REMEDY) from error
    except yaml.YAMLError as error:
        problem = str(error).splitlines()[0]
        raise SettingsError(option, f"{path}: {problem}", _REMEDY) from error
    if not isinstance(content, dict):
        raise SettingsError(option, f"{path} does not contain a profile", _REMEDY)
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        what = {"extra_forbidden": "unknown", "missing": "missing"}.get(first["type"], first["msg"])
        problem = f"{path}: {field}: {what}" if field else f"{path}: {what}"
        raise SettingsError(option, problem, _REMEDY) from error


def write_profile_file(path: Path, profile: Profile) -> None:
    """Write a profile, as JSON if the name ends in `.json` and else as YAML.

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


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case float():
            return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list():
            return [_rounded(each) for each in value]
    return value
