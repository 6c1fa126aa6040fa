"""Settings of the HTTP endpoint."""

from __future__ import annotations

from pydantic import Field, field_validator

from tdpipe.core.settings.section import Section


class ServerSettings(Section):
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
