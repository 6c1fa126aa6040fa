"""All settings of the engine, with their units, in one schema.

Values come from a YAML file, the environment (`TDPIPE_PIPELINE__STAGES=2`) and flags, each overriding the ones before.
The operator writes the same file, so both sides validate with this module, which therefore needs only pydantic.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from tdpipe.core.errors import SettingsError
from tdpipe.core.settings_problems import setting_problem, to_settings_error
from tdpipe.core.settings_variables import (
    DELIMITER,
    PREFIX,
    refuse_unknown_variables,
    variable_name,
)

_MIN_TRAINING_ROWS = 512


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object) -> object:
        # pydantic reads true as 1. Its strict mode does not, but it refuses the environment's numbers, which are text.
        parts = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(part, bool) for part in parts):
            raise setting_problem("cannot be true or false", "give a number, or quote the word")
        return value

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: object) -> object:
        # Shells expand `~` neither in files nor after `--model=`.
        return value.expanduser() if isinstance(value, Path) else value


class ModelSettings(_Section):
    """The model, and how it is held in memory."""

    path: Path | None = None
    """Directory of a checkpoint with config.json, tokenizer.json and *.safetensors. None serves the demo model."""
    name: str | None = None
    """Name under which the model is served. None takes the directory's name, or `demo`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of every stage; auto is cuda if torch can use it and there is a GPU for each stage, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of weights, activations and KV cache; auto is bfloat16 on GPUs that support it, else float32."""
    attention: Literal["auto", "sdpa", "cpu"] = "auto"
    """Attention backend; auto is the C kernel on CPUs if a compiler is found, else sdpa."""
    max_context: int | None = Field(default=None, ge=2)
    """Maximum number of tokens of prompt and output together. None takes the model's own limit."""


class PipelineSettings(_Section):
    """How the model is divided into stages, and where the stages run."""

    stages: int = Field(default=2, ge=1)
    """Number of pipeline stages, at most one per layer."""
    partition: tuple[int, ...] | None = None
    """Number of layers of each stage; the sum is the model's. None balances the estimated stage times."""
    host: Literal["ray", "in_process"] = "ray"
    """Host of the stages: Ray actors, or threads of the controller's own process (for tests)."""
    threads_per_stage: int = Field(default=1, ge=1)
    """Number of CPU threads that a stage computes with; it has no effect on CUDA devices."""
    network_interface: str | None = None
    """Network interface for activations, such as `eth0`. None lets torch.distributed choose."""
    start_timeout: float = Field(default=300.0, gt=0)
    """Seconds that joining Ray, and placing and connecting all stages may take."""
    load_timeout: float = Field(default=1800.0, gt=0)
    """Seconds that loading the weights of all stages may take."""
    step_timeout: float = Field(default=300.0, gt=0)
    """Seconds without a result, while steps are in flight, after which the pipeline counts as hung."""

    @field_validator("partition", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept `2,2` as well, which is natural in a variable, where pydantic-settings accepts only JSON."""
        if isinstance(value, int):  # what JSON makes of a variable with a single number
            return (value,)
        return value.split(",") if isinstance(value, str) else value

    @field_validator("network_interface", "start_timeout", "load_timeout")
    @classmethod
    def _needs_ray(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("host") == "in_process":
            raise setting_problem(
                "has no effect on stages in this process",
                "leave it out or set pipeline.host to ray",
            )
        return value


class CacheSettings(_Section):
    """The KV cache of every stage."""

    block_size: int = Field(default=16, ge=1, le=256)
    """Number of tokens in a block."""
    memory: float | None = Field(default=None, gt=0)
    """GiB of KV cache per stage. None takes 90% of a GPU's free memory, or a share of the host's memory."""
    blocks: int | None = Field(default=None, ge=1)
    """Number of blocks of each stage; overrides `memory`."""


class SchedulerSettings(_Section):
    """The scheduling policy and its parameters."""

    policy: Literal["adaptive", "temporal", "hybrid", "throttled", "separate", "reference"] = (
        "adaptive"
    )
    """`adaptive` composes each micro-batch by the costs; `temporal` separates prefill and decode in time; the others
    are baselines: `hybrid` mixes both in one token budget, `throttled` limits prefill by load and free KV,
    `separate` prefills first, `reference` follows the rules of the TD-Pipe paper."""
    token_budget: int = Field(default=512, ge=1)
    """Batch tokens of a micro-batch that contains prefill, for `adaptive` at most; longer prompts are chunked,
    except by `reference`, which prefills them whole."""
    max_running: int = Field(default=256, ge=1)
    """Maximum number of sequences that hold KV cache at once."""
    profile: Path | None = None
    """File of `tdpipe profile` with measured times of the stages. None measures a few steps at each start."""
    forecast_margin: float = Field(default=1.0, ge=0)
    """KV that is kept free beyond the forecast use, in standard deviations of the forecast."""
    switch_hysteresis: float = Field(default=1.0, ge=0)
    """Share of the cost of switching to prefill by which the loss from small decode batches must exceed it."""
    ttft_target: float | None = Field(default=None, gt=0)
    """Target for the seconds from a request's arrival to its first token, for `adaptive`. None sets no target."""
    tpot_target: float | None = Field(default=None, gt=0)
    """Target for the seconds between two tokens of a request, for `adaptive`. None sets no target."""

    @field_validator("ttft_target", "tpot_target")
    @classmethod
    def _needs_adaptive(cls, value: object, info: ValidationInfo) -> object:
        policy = info.data.get("policy")
        if value is not None and policy not in (None, "adaptive"):
            raise setting_problem(
                f"has no effect on {policy}", "leave it out or set scheduler.policy to adaptive"
            )
        return value

    @field_validator("forecast_margin", "switch_hysteresis")
    @classmethod
    def _needs_temporal(cls, value: object, info: ValidationInfo) -> object:
        if (policy := info.data.get("policy")) not in (None, "temporal"):
            raise setting_problem(
                f"has no effect on {policy}", "leave it out or set scheduler.policy to temporal"
            )
        return value


class PredictorSettings(_Section):
    """The predictor of output lengths."""

    path: Path | None = None
    """File written by `tdpipe train-predictor`. None starts untrained."""
    training_rows: int = Field(default=4096, ge=0)
    """Number of finished requests that the predictor is trained on again while serving; 0 never trains it."""

    @field_validator("training_rows")
    @classmethod
    def _check_training_rows(cls, value: int) -> int:
        if 0 < value < _MIN_TRAINING_ROWS:
            raise setting_problem(
                f"must be 0 or at least {_MIN_TRAINING_ROWS}",
                f"got {value}, too few to learn from",
            )
        return value


class ServerSettings(_Section):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port to listen on."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API from a browser, such as `https://chat.example.org`; `*` allows any."""

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept `a,b` as well, which is natural in a variable, where pydantic-settings accepts only JSON."""
        return value.split(",") if isinstance(value, str) else value


class Settings(BaseSettings):
    """All settings. Use `load_settings` to read them; it reports an invalid one in one line."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    schema_version: Literal[1] = 1
    """Version of this schema; a file of another version is refused."""
    model: ModelSettings = ModelSettings()
    pipeline: PipelineSettings = PipelineSettings()
    cache: CacheSettings = CacheSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    predictor: PredictorSettings = PredictorSettings()
    server: ServerSettings = ServerSettings()


def load_settings(
    file: Path | None = None, flags: dict[str, dict[str, Any]] | None = None
) -> Settings:
    """Read settings from a file, the environment and flags, each overriding the ones before.

    Args:
        file: YAML file of settings.
        flags: section → field → value.

    Raises:
        SettingsError: the file is missing or not YAML, or a value has an unknown name, the wrong
            type, is out of range or has no effect with the others.
    """
    refuse_unknown_variables(Settings, os.environ)
    content = {} if file is None else _read(file)

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, env_settings, InitSettingsSource(settings_cls, content))

    try:
        return Layered(**(flags or {}))  # type: ignore[arg-type]
    except ValidationError as error:
        raise to_settings_error(error, Settings) from error
    except SourceError as error:
        example = variable_name("pipeline", "stages")
        raise SettingsError(
            "environment", str(error), f"set one field per variable, such as {example}=2"
        ) from error


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise SettingsError("--config", f"no such file: {file}", "give the path of a YAML file")
    try:
        content = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        problem = str(error).splitlines()[0]
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            problem = f"line {error.problem_mark.line + 1}: {error.problem}"
        raise SettingsError(str(file), problem, "give a YAML file that can be read") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise SettingsError(
            str(file), "must be a mapping of sections", "write it like pipeline: {stages: 2}"
        )
    return content
