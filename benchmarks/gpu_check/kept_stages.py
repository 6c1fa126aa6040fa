"""Stages of a checkpoint whose weights stay on the device from one pipeline to the next.

Loading 16 GB takes longer than most parts of the check, and several parts start a pipeline of the same model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.pipeline.checkpoint_stages import CheckpointStages, LoadedCheckpointStage

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class KeptStages(CheckpointStages):
    """Stages that are loaded once. All pipelines must have the same settings of model, cache and slots."""

    kept: dict[int, LoadedCheckpointStage] = field(default_factory=dict)

    def load(self, stage: int, device: torch.device, sharing: int) -> LoadedCheckpointStage:
        if stage not in self.kept:
            # super() without arguments refers to the class before dataclass replaced it to add the slots.
            self.kept[stage] = CheckpointStages.load(self, stage, device, sharing)
        return self.kept[stage]
