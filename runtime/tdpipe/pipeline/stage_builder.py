"""How a stage comes to be, in two moves.

Loading tells how many KV blocks fit beside the weights; only when every stage has told can the
cache be made, with the least of them. Hosts know stages through this interface alone, so tests host
ones that load nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tdpipe.model.device import device_name
from tdpipe.pipeline.base import StageDevice

if TYPE_CHECKING:
    import torch

    from tdpipe.core.capacity import Capacity
    from tdpipe.stage.loop import Executor


class LoadedStage(Protocol):
    """A stage with its weights and without its KV cache."""

    name: str
    """What it is, for people: `layers 0-15 (float32, cpu attention)`."""
    hidden_size: int
    dtype: torch.dtype
    device: torch.device

    def fitting_blocks(self) -> int:
        """KV blocks that this stage has room for.

        Raises:
            SettingsError: the settings ask for more.
        """

    def executor(self, blocks: int) -> Executor:
        """Allocate `blocks` KV blocks and everything else that steps need."""


def stage_device(stage: LoadedStage) -> StageDevice:
    """What a stage computes with, asked where it is loaded."""
    dtype = str(stage.dtype).removeprefix("torch.")
    return StageDevice(device_name(stage.device), stage.device.type, dtype)


class StageBuilder(Protocol):
    """Builds the stages of one pipeline. Travels to their processes, so it must pickle."""

    @property
    def stages(self) -> int: ...

    def load(self, stage: int, device: torch.device, sharing: int) -> LoadedStage:
        """Load a stage's weights.

        Args:
            stage: which.
            device: where to.
            sharing: stages that share the device's memory, this one included.

        Raises:
            ModelError: the checkpoint cannot be loaded.
        """

    def capacity(self, blocks: int) -> Capacity:
        """What a pipeline with so many blocks per stage holds.

        Raises:
            SettingsError: too few to hold any sequence.
        """
