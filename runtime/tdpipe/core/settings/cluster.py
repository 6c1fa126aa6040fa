"""Settings of a controller and workers on several machines."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tdpipe.core.settings.section import Section


class ClusterSettings(Section):
    """A controller and its workers, each a process on a machine or in a container of its own."""

    address: str | None = None
    """Address of the controller as its workers reach it, such as `tdpipe-controller:6379`. Workers need it."""
    host: str | None = None
    """IP address at which the other machines reach this one. None takes the one that reaches the other machines."""
    token_file: Path | None = None
    """File with the secret that the controller and its workers share. It is needed on every machine."""
    stages_per_worker: int = Field(default=1, ge=1)
    """Number of neighbouring stages that a worker hosts."""
    epoch: int = Field(default=1, ge=1)
    """Generation of a worker. A controller uses no worker of an earlier epoch than its own."""
    place: int | None = Field(default=None, ge=0)
    """Place of a worker among those of its epoch, from 0. Workers need it; the stages follow from it."""
    ray_port: int = Field(default=6379, ge=1, le=65535)
    """TCP port of Ray's head on the controller."""
    first_port: int = Field(default=6400, ge=1, le=65436)
    """First of the 100 consecutive TCP ports that Ray's processes and the pipeline use on this machine."""
    probe_host: str = "127.0.0.1"
    """Address on which a worker answers health probes."""
    probe_port: int = Field(default=8001, ge=1, le=65535)
    """TCP port on which a worker answers health probes."""
