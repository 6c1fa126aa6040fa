"""Stages that stand in for GPUs: hosted, fed and watched like real ones, but without a model."""

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
    """The `StageBuilder` of stages that take a cost model's time. All must be on one machine: they share its clock."""

    cost: CostModel
    room: Capacity
    latencies: Latencies = field(default_factory=Latencies)
    """Latencies of messages, of which the stages wait for those of activations."""

    @property
    def stages(self) -> int:
        return len(self.cost.stages)

    def load(self, stage: int, device: torch.device, sharing: int) -> PacedStage:  # noqa: ARG002
        """Nothing is loaded."""
        return PacedStage(self, stage)

    def capacity(self, blocks: int) -> Capacity:  # noqa: ARG002 - stages have the room that they are told
        return self.room


class PacedStage:
    """One stage of `plan`."""

    hidden_size = HIDDEN_SIZE
    dtype = DTYPE
    device = torch.device("cpu")

    def __init__(self, plan: PacedStages, stage: int) -> None:
        self._plan = plan
        self._stage = stage
        self.name = "paced, without a model"

    def fitting_blocks(self) -> int:
        return self._plan.room.blocks

    def executor(self, blocks: int) -> PacedExecutor:
        room = self._plan.room
        return PacedExecutor(
            self._plan.cost,
            self._stage,
            self._plan.latencies,
            slots=room.slots,
            max_context=room.max_context,
            blocks=blocks,
            block_size=room.block_size,
        )
