"""Settings of the stages and their KV cache."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from tdpipe.core.settings.problems import setting_problem
from tdpipe.core.settings.section import Section


class PipelineSettings(Section):
    """How the model is divided into stages, and where the stages run."""

    stages: int = Field(default=2, ge=1)
    """Number of pipeline stages, at most one per layer."""
    partition: tuple[int, ...] | None = None
    """Number of layers of each stage; the sum is the model's. None balances the estimated stage times."""
    host: Literal["ray", "in_process"] = "ray"
    """Host of the stages: Ray actors, or threads of the controller's own process (for tests)."""
    threads_per_stage: int | None = Field(default=None, ge=1)
    """Number of CPU threads that a stage computes with; it has no effect on CUDA devices. None takes 1 on one machine,
    and a worker's CPUs divided by its stages where workers host the stages."""
    network_interface: str | None = None
    """Network interface for activations, such as `eth0`. None lets torch.distributed choose."""
    start_timeout: float = Field(default=300.0, gt=0)
    """Seconds that joining Ray, and placing and connecting all stages may take."""
    load_timeout: float = Field(default=1800.0, gt=0)
    """Seconds that loading the weights of all stages may take."""
    step_timeout: float = Field(default=300.0, gt=0)
    """Seconds without a result, while steps are in flight, after which the pipeline counts as hung."""

    @property
    def threads(self) -> int:
        """Number of CPU threads of a stage on one machine."""
        return self.threads_per_stage or 1

    @field_validator("partition", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept `2,2` as well, which is natural in a variable, where pydantic-settings accepts only JSON."""
        if isinstance(value, int):  # what JSON makes of a variable with a single number
            return (value,)
        return value.split(",") if isinstance(value, str) else value

    @field_validator("network_interface", "start_timeout", "load_timeout")
    @classmethod
    def _needs_ray(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("host") == "in_process":
            raise setting_problem(
                "has no effect on stages in this process",
                "leave it out or set pipeline.host to ray",
            )
        return value


class CacheSettings(Section):
    """The KV cache of every stage."""

    block_size: int = Field(default=16, ge=1, le=256)
    """Number of tokens in a block."""
    memory: float | None = Field(default=None, gt=0)
    """GiB of KV cache per stage. None takes 90% of a GPU's free memory, or a share of the host's memory."""
    blocks: int | None = Field(default=None, ge=1)
    """Number of blocks of each stage; overrides `memory`."""
