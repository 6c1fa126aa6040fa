"""Error messages for settings that name the remedy, where those of pydantic do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


def setting_problem(problem: str, remedy: str) -> PydanticCustomError:
    """Create the error that a validator of a setting raises."""
    return PydanticCustomError(
        "problem_and_remedy", "{problem}", {"problem": problem, "remedy": remedy}
    )


def to_settings_error(error: ValidationError, schema: type[BaseModel]) -> SettingsError:
    """Convert the first problem that pydantic found in settings of `schema`."""
    first = error.errors()[0]
    location = first["loc"]
    problem, remedy = first["msg"], f"got {first['input']!r}"
    match first["type"]:
        case "problem_and_remedy":
            remedy = first["ctx"]["remedy"]
        case "extra_forbidden":
            names = ", ".join(_fields(schema, location[:-1]))
            problem, remedy = "no such setting", f"use one of {names}"
        case "model_type":
            example = f"{location[-1]}: {{{_fields(schema, location)[0]}: ...}}"
            problem, remedy = "must be a section of settings", f"write it like {example}"
        case "tuple_type":
            problem, remedy = "must be a list of numbers", "write it like [2, 2], or 2,2"
    return SettingsError(".".join(map(str, location)), problem, remedy)


def _fields(schema: Any, section: tuple[int | str, ...]) -> list[str]:  # noqa: ANN401
    for name in section:
        schema = schema.model_fields[name].annotation
    return list(schema.model_fields)
