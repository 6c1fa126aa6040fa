"""Settings of the commands that start a pipeline.

An option that sets a setting is described by the settings' own schema, so that its help cannot differ from it. Where no
model is given, the demo model of the repository is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import tdpipe
from tdpipe.core.errors import SettingsError
from tdpipe.core.settings import Settings, load_settings
from tdpipe.core.settings.variables import variable_name

_DEMO_CHECKPOINT = Path("examples", "demo_model", "checkpoint")


def setting_option(section: str, field: str, *flags: str, metavar: str | None = None) -> Any:  # noqa: ANN401
    """Create a typer option for `section.field`. Its help names the default and the environment variable.

    The option itself has no default and reads no variable: `load_command_settings` merges file, environment and flags.
    """
    schema: Any = Settings.model_fields[section].annotation
    info = schema.model_fields[field]
    text = (info.description or "").rstrip(".").replace("None ", "If absent, ")
    default = "" if info.default is None else f"default {info.default}, "
    return typer.Option(
        *flags,
        help=f"{text} ({default}env {variable_name(section, field)}).",
        show_default=False,
        metavar=metavar,
    )


ModelPath = Annotated[Path | None, setting_option("model", "path", "--model", metavar="DIR")]
StageCount = Annotated[int | None, setting_option("pipeline", "stages", "--stages", metavar="N")]
Device = Annotated[
    str | None, setting_option("model", "device", "--device", metavar="auto|cpu|cuda")
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="YAML file of settings.", show_default=False, metavar="FILE")
]


def load_command_settings(config: Path | None, flags: dict[str, dict[str, Any]]) -> Settings:
    """Merge file, environment and flags, and fill in the model's path and name.

    Args:
        config: YAML file of settings.
        flags: section → field → value, with None for a flag that is not given.

    Raises:
        SettingsError: a setting cannot be used, or no model is given and the installation has no demo model.
    """
    given = {
        section: {field: value for field, value in fields.items() if value is not None}
        for section, fields in flags.items()
    }
    settings = load_settings(
        config, {section: fields for section, fields in given.items() if fields}
    )
    path, name = settings.model.path, settings.model.name
    if path is None:
        path, name = _demo_checkpoint(), name or "demo"
    model = settings.model.model_copy(update={"path": path, "name": name or path.resolve().name})
    return settings.model_copy(update={"model": model})


def refuse_cluster_settings(settings: Settings) -> None:
    """Refuse settings of a cluster for a command that runs on one machine.

    Raises:
        SettingsError: there is one.
    """
    if given := sorted(settings.cluster.model_fields_set):
        raise SettingsError(
            f"cluster.{given[0]}",
            "has no effect on one machine",
            "remove it, or run `tdpipe controller` and `tdpipe worker`",
        )


def is_demo(settings: Settings) -> bool:
    """Whether the model is the demo model of the repository."""
    return settings.model.path == _demo_path()


def _demo_path() -> Path:
    return Path(tdpipe.__file__).resolve().parents[2] / _DEMO_CHECKPOINT


def _demo_checkpoint() -> Path:
    path = _demo_path()
    if not (path / "config.json").is_file():
        raise SettingsError(
            "model.path",
            "no model is given, and this installation has no demo model",
            "pass --model DIR",
        )
    return path
