"""The base of every section of settings: what all fields share."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from tdpipe.core.settings.problems import setting_problem


class Section(BaseModel):
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
