"""Names of the environment variables that set settings, and the refusal of those that set nothing.

pydantic-settings looks only for the variables that it knows, so a misspelt one would go unnoticed.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

PREFIX = "TDPIPE_"
DELIMITER = "__"

# Kubernetes sets these in every pod for a Service whose name begins with `tdpipe`.
_SERVICE_LINK = re.compile(r"\w*(_SERVICE_(HOST|PORT)\w*=|_PORT_\d+_\w+=|_PORT=\w+://)")

_MIN_LIKENESS = 1.2
"""Likeness, at most 2, from which a name is taken for a misspelt one."""


def variable_name(section: str, field: str) -> str:
    """Return the name of the variable that sets `section.field`."""
    return f"{PREFIX}{section}{DELIMITER}{field}".upper()


def refuse_unknown_variables(schema: type[BaseModel], environment: Mapping[str, str]) -> None:
    """Refuse a variable that begins with the prefix, in upper or lower case, but sets nothing.

    Raises:
        SettingsError: a variable names neither a section of `schema` nor a field of one.
    """
    sections, settings = set(), []
    for section, info in schema.model_fields.items():
        if fields := getattr(info.annotation, "model_fields", None):
            sections.add(f"{PREFIX}{section}".upper())
            settings += [variable_name(section, field) for field in fields]
    for variable, value in environment.items():
        name = variable.upper()
        if not name.startswith(PREFIX) or name in sections or name in settings:
            continue
        if not _SERVICE_LINK.match(f"{name}={value}"):
            nearest = max(settings, key=lambda setting: _likeness(name, setting))
            remedy = f"the nearest name is {nearest}"
            if _likeness(name, nearest) < _MIN_LIKENESS:
                remedy = "unset it; `tdpipe serve --help` shows how variables are named"
            raise SettingsError(variable, "is not the name of a setting", remedy)


def _likeness(name: str, setting: str) -> float:
    # The field alone counts too, because people leave out the section.
    field, setting_field = (
        each.removeprefix(PREFIX).split(DELIMITER)[-1] for each in (name, setting)
    )
    return _ratio(name, setting) + _ratio(field, setting_field)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
