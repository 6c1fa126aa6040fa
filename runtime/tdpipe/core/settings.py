"""Every setting of the engine, with its unit, in one schema.

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

_FEWEST_TRAINING_ROWS = 512


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_boolean(cls, value: object) -> object:
        # pydantic would take true for 1, and strict mode, which does not, refuses the environment's text.
        parts = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(part, bool) for part in parts):
            raise setting_problem("cannot be true or false", "give a number, or quote the word")
        return value

    @field_validator("*")
    @classmethod
    def _is_no_home(cls, value: object) -> object:
        # Only shells expand `~`, and not in files, nor after `--model=`.
        return value.expanduser() if isinstance(value, Path) else value


class ModelSettings(_Section):
    """Which model, and how it is held in memory."""

    path: Path | None = None
    """Directory of a checkpoint: config.json, tokenizer and *.safetensors. None serves the demo model."""
    name: str | None = None
    """Name under which the model is served. None takes the directory's name, or `demo`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of every stage; auto is cuda where torch can use it and each stage finds a GPU of its own, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of weights, activations and KV cache; auto is bfloat16 on GPUs that compute in it, else float32."""
    attention: Literal["auto", "sdpa", "cpu"] = "auto"
    """Attention backend; auto takes the C kernel on CPUs where a compiler is found, else sdpa."""
    max_context: int | None = Field(default=None, ge=2)
    """Tokens of prompt and output together at most. None takes the model's own limit."""


class PipelineSettings(_Section):
    """How the model is cut into stages and how these are hosted."""

    stages: int = Field(default=2, ge=1)
    """Number of pipeline stages, at most one per layer."""
    partition: tuple[int, ...] | None = None
    """Layers of each stage, summing to the model's layers. None balances the estimated stage times."""
    host: Literal["ray", "in_process"] = "ray"
    """Where stages live: Ray actors, or threads of the controller's own process (for tests)."""
    threads_per_stage: int = Field(default=1, ge=1)
    """CPU threads that a stage computes with; ignored by CUDA devices only."""
    network_interface: str | None = None
    """Interface that activations travel over, such as `eth0`. None lets torch.distributed choose."""
    start_timeout: float = Field(default=300.0, gt=0)
    """Seconds that joining Ray, and placing and connecting all stages may take."""
    load_timeout: float = Field(default=1800.0, gt=0)
    """Seconds that loading the weights of all stages may take."""
    step_timeout: float = Field(default=300.0, gt=0)
    """Seconds without any result, while steps are in flight, after which the pipeline counts as hung."""

    @field_validator("partition", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take `2,2` too, as is natural in a variable, where pydantic-settings takes only JSON."""
        if isinstance(value, int):  # what JSON makes of a variable with a single number
            return (value,)
        return value.split(",") if isinstance(value, str) else value

    @field_validator("network_interface", "start_timeout", "load_timeout")
    @classmethod
    def _needs_ray(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("host") == "in_process":
            raise setting_problem(
                "is of no use in process", "leave it out or set pipeline.host to ray"
            )
        return value


class CacheSettings(_Section):
    """The KV cache of every stage."""

    block_size: int = Field(default=16, ge=1, le=256)
    """Tokens in a block."""
    memory: float | None = Field(default=None, gt=0)
    """GiB of KV cache per stage. None takes 90% of a GPU's free memory, or a share of the host's for CPU stages."""
    blocks: int | None = Field(default=None, ge=1)
    """Number of blocks, overriding `memory`."""


class SchedulerSettings(_Section):
    """What runs when."""

    policy: Literal["adaptive", "temporal", "hybrid", "throttled", "separate", "reference"] = (
        "adaptive"
    )
    """`adaptive` fills each micro-batch as the costs say; `temporal` separates prefill and decode in time; the others
    are baselines: `hybrid` mixes both in one token budget, `throttled` lets load and free KV bound the prefill,
    `separate` prefills first, `reference` has the rules that TD-Pipe published."""
    token_budget: int = Field(default=512, ge=1)
    """Batch tokens of a micro-batch that contains prefill, for `adaptive` at most; longer prompts are chunked, but for
    `reference`, which prefills them whole."""
    max_running: int = Field(default=256, ge=1)
    """Sequences that may hold KV at once."""
    profile: Path | None = None
    """Measured times of the stages, a file of `tdpipe profile`. None measures a few steps at each start."""
    forecast_margin: float = Field(default=1.0, ge=0)
    """Standard deviations of the forecast KV use that are kept free."""
    switch_hysteresis: float = Field(default=1.0, ge=0)
    """How much the loss from thin decode batches must exceed the cost of switching to prefill, as a share of it."""
    ttft_target: float | None = Field(default=None, gt=0)
    """Seconds from a request's arrival to its first token that `adaptive` tries to keep. None is no bound."""
    tpot_target: float | None = Field(default=None, gt=0)
    """Seconds between two tokens of a request that `adaptive` keeps its micro-batches short for. None is no bound."""

    @field_validator("ttft_target", "tpot_target")
    @classmethod
    def _needs_adaptive(cls, value: object, info: ValidationInfo) -> object:
        policy = info.data.get("policy")
        if value is not None and policy not in (None, "adaptive"):
            raise setting_problem(
                f"is of no use to {policy}", "leave it out or set scheduler.policy to adaptive"
            )
        return value

    @field_validator("forecast_margin", "switch_hysteresis")
    @classmethod
    def _needs_phases(cls, value: object, info: ValidationInfo) -> object:
        if (policy := info.data.get("policy")) not in (None, "temporal"):
            raise setting_problem(
                f"is of no use to {policy}", "leave it out or set scheduler.policy to temporal"
            )
        return value


class PredictorSettings(_Section):
    """How long outputs are expected to be."""

    path: Path | None = None
    """File made by `tdpipe train-predictor`. None starts from nothing."""
    training_rows: int = Field(default=4096, ge=0)
    """Finished requests in memory, from which the predictor is trained anew while serving; 0 leaves it as it is."""

    @field_validator("training_rows")
    @classmethod
    def _is_enough(cls, value: int) -> int:
        if 0 < value < _FEWEST_TRAINING_ROWS:
            raise setting_problem(
                f"must be 0 or at least {_FEWEST_TRAINING_ROWS}",
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
    """Origins of web pages that may call the API from a browser, such as `https://chat.example.org`; `*` is any."""

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take `a,b` too, as is natural in a variable, where pydantic-settings takes only JSON."""
        return value.split(",") if isinstance(value, str) else value


class Settings(BaseSettings):
    """All settings. Read them with `load_settings`, which says in one line what is wrong with a bad one."""

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
    """Read settings from `file`, then the environment, then `flags` (section → field → value).

    Raises:
        SettingsError: the file is missing or not YAML, or a value has an unknown name, the wrong
            type, is out of range or of no use beside the others.
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
            "environment", str(error), f"set one field in a variable, such as {example}=2"
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
            str(file), "must hold sections by name", "write it like pipeline: {stages: 2}"
        )
    return content
