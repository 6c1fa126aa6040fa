"""Command-line options that set a setting, described by the settings' own schema."""

from __future__ import annotations

from typing import Any

import typer

from tdpipe.core.settings import Settings
from tdpipe.core.settings_variables import variable_name


def setting_option(section: str, field: str, *flags: str, metavar: str | None = None) -> Any:  # noqa: ANN401
    """A typer option for `section.field`; its help names the default and the environment variable.

    The option itself has no default and reads no variable: `load_settings` merges file, environment
    and flags.
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


def only_given(flags: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`flags` (section → field → value) without those that were not given."""
    given = {
        section: {field: value for field, value in fields.items() if value is not None}
        for section, fields in flags.items()
    }
    return {section: fields for section, fields in given.items() if fields}
