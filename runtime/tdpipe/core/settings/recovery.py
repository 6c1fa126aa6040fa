"""Settings of restarts after a failure of the stages, and of the process's end."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tdpipe.core.settings.section import Section


class RecoverySettings(Section):
    """How often the stages are restarted after failures before the process ends."""

    max_restarts: int = Field(default=3, ge=0)
    """Maximum number of restarts without a served token between them. 0 ends the process at the first failure."""
    max_restarts_per_hour: int = Field(default=10, ge=1)
    """Maximum number of restarts within an hour."""


class ProcessSettings(Section):
    """What a process of tdpipe tells the one that supervises it."""

    termination_message_path: Path | None = None
    """File to which the reason of the process's end is written as JSON of at most 4 kB. Kubernetes reads
    `/dev/termination-log`."""
