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

    recovery_patience: float = Field(default=300.0, ge=0)
    """Seconds for which requests are still accepted, and wait, while failed stages restart."""
    recovery_queue: int = Field(default=4096, ge=0)
    """Number of unfinished requests from which further ones are refused while failed stages restart."""
    drain_pause: float = Field(default=0.0, ge=0)
    """Seconds for which requests are still accepted after SIGTERM, until load balancers have noticed the end."""
    drain_timeout: float = Field(default=30.0, ge=0)
    """Seconds that running requests then have to finish."""

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept `a,b` as well, which is natural in a variable, where pydantic-settings accepts only JSON."""
        return value.split(",") if isinstance(value, str) else value
