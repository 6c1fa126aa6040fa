"""Paced stages, which stand in for GPUs: they run and are supervised like real stages, but have no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tdpipe.core.latencies import Latencies
from tdpipe.measurement.paced_executor import DTYPE, HIDDEN_SIZE, PacedExecutor

if TYPE_CHECKING:
    from tdpipe.core.capacity import Capacity
    from tdpipe.scheduling.cost_model import CostModel


@dataclass(frozen=True, slots=True)
class PacedStages:
    """The `StageBuilder` of stages that take as long as a cost model says.

    All stages must be on one machine, as they share its clock.
    """

    cost: CostModel
    stage_capacity: Capacity
    """The capacity of every stage."""
    latencies: Latencies = field(default_factory=Latencies)
    """Latencies of messages; the stages wait for those of activations."""

    @property
    def stages(self) -> int:
        return len(self.cost.stages)

    def load(self, stage: int, device: torch.device, sharing: int) -> PacedStage:  # noqa: ARG002
        """Return the stage; there is nothing to load."""
        return PacedStage(self, stage)

    def capacity(self, blocks: int) -> Capacity:  # noqa: ARG002
        return self.stage_capacity


class PacedStage:
    """One stage.

    Args:
        builder: The builder of all stages.
        stage: The number of this stage.
    """

    hidden_size = HIDDEN_SIZE
    dtype = DTYPE
    device = torch.device("cpu")

    def __init__(self, builder: PacedStages, stage: int) -> None:
        self._builder = builder
        self._stage = stage
        self.name = "paced, without a model"

    def fitting_blocks(self) -> int:
        return self._builder.stage_capacity.blocks

    def executor(self, blocks: int) -> PacedExecutor:
        capacity = self._builder.stage_capacity
        return PacedExecutor(
            self._builder.cost,
            self._stage,
            self._builder.latencies,
            slots=capacity.slots,
            max_context=capacity.max_context,
            blocks=blocks,
            block_size=capacity.block_size,
        )
