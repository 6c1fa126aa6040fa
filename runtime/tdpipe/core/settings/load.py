"""Reading all settings from a YAML file, the environment (`TDPIPE_PIPELINE__STAGES=2`) and flags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from tdpipe.core.errors import SettingsError
from tdpipe.core.settings.cluster import ClusterSettings
from tdpipe.core.settings.model import ModelSettings
from tdpipe.core.settings.pipeline import CacheSettings, PipelineSettings
from tdpipe.core.settings.problems import to_settings_error
from tdpipe.core.settings.recovery import ProcessSettings, RecoverySettings
from tdpipe.core.settings.scheduler import PredictorSettings, SchedulerSettings
from tdpipe.core.settings.server import ServerSettings
from tdpipe.core.settings.variables import (
    DELIMITER,
    PREFIX,
    refuse_unknown_variables,
    variable_name,
)


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
    cluster: ClusterSettings = ClusterSettings()
    recovery: RecoverySettings = RecoverySettings()
    process: ProcessSettings = ProcessSettings()


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
