"""Every setting of the engine, with its unit, in one schema.

Values come from a YAML file, the environment (`TDPIPE_PIPELINE__STAGES=2`) and flags, each overriding the ones before.
The operator writes the same file, so both sides validate with this module, which therefore needs only pydantic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from yaml import YAMLError

from tdpipe.core.errors import SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSettings(_Section):
    """Which model, and how it is held in memory."""

    path: Path | None = None
    """Directory of a checkpoint: config.json, tokenizer and *.safetensors. None serves the demo model."""
    name: str | None = None
    """Name under which the model is served. None takes the directory's name, or `demo`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of every stage; auto is cuda where there is one."""
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
    """Seconds that placing, loading and connecting all stages may take."""
    step_timeout: float = Field(default=300.0, gt=0)
    """Seconds without any result, while steps are in flight, after which the pipeline counts as hung."""


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

    policy: Literal["temporal", "hybrid"] = "temporal"
    """`temporal` separates prefill and decode in time; `hybrid` mixes both in one token budget."""
    token_budget: int = Field(default=512, ge=1)
    """Batch tokens of a micro-batch that contains prefill; longer prompts are chunked."""
    max_running: int = Field(default=256, ge=1)
    """Sequences that may hold KV at once."""
    forecast_margin: float = Field(default=1.0, ge=0)
    """Standard deviations of the forecast KV use that are kept free."""
    switch_hysteresis: float = Field(default=1.0, ge=0)
    """How much the loss from thin decode batches must exceed the cost of switching to prefill, as a share of it."""


class ServerSettings(_Section):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port to listen on."""


class Settings(BaseSettings):
    """All settings. Read them with `load_settings`, which says in one line what is wrong with a bad one."""

    model_config = SettingsConfigDict(
        env_prefix="TDPIPE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
        use_attribute_docstrings=True,
    )

    schema_version: Literal[1] = 1
    """Version of this schema; a file of another version is refused."""
    model: ModelSettings = ModelSettings()
    pipeline: PipelineSettings = PipelineSettings()
    cache: CacheSettings = CacheSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    server: ServerSettings = ServerSettings()


def load_settings(
    file: Path | None = None, flags: dict[str, dict[str, Any]] | None = None
) -> Settings:
    """Read settings from `file`, then the environment, then `flags` (section → field → value).

    Raises:
        SettingsError: the file is missing or not YAML, or a value has an unknown name, the wrong
            type or is out of range.
    """
    if file is not None and not file.is_file():
        raise SettingsError("--config", f"no such file: {file}", "give the path of a YAML file")

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
            yaml = () if file is None else (YamlConfigSettingsSource(settings_cls, yaml_file=file),)
            return (init_settings, env_settings, *yaml)

    try:
        return Layered(**(flags or {}))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        remedy = f"got {first['input']!r}" if first["type"] != "missing" else "set it"
        raise SettingsError(field, first["msg"], remedy) from error
    except (ValueError, TypeError, YAMLError) as error:
        where = "settings" if file is None else str(file)
        raise SettingsError(
            where, str(error).splitlines()[0], "mend the file or variable"
        ) from error
