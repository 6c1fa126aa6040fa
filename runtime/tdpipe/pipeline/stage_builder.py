"""The interface through which a host of stages builds them, in two steps.

After loading its weights, each stage reports how many KV blocks fit into the remaining memory. The cache of every
stage is then allocated with the smallest of these numbers. Hosts use stages through this interface only, so that tests
can host stages without a model.
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
    """A stage that has its weights but no KV cache yet."""

    name: str
    """Readable name of what the stage holds: `layers 0-15 (float32, cpu attention)`."""
    hidden_size: int
    dtype: torch.dtype
    device: torch.device

    def fitting_blocks(self) -> int:
        """Return the number of KV blocks that this stage has room for.

        Raises:
            SettingsError: the settings request more.
        """

    def executor(self, blocks: int) -> Executor:
        """Allocate `blocks` KV blocks and all other memory that steps need."""


def stage_device(stage: LoadedStage, threads: int) -> StageDevice:
    """Describe the stage's device. This must run in the process that loaded the stage.

    Args:
        stage: the stage.
        threads: number of CPU threads that it computes with.
    """
    dtype = str(stage.dtype).removeprefix("torch.")
    return StageDevice(device_name(stage.device), stage.device.type, dtype, threads)


class StageBuilder(Protocol):
    """The builder of a pipeline's stages. It is sent to their processes, so it must be picklable."""

    @property
    def stages(self) -> int:
        """Number of stages."""

    def load(self, stage: int, device: torch.device, sharing: int) -> LoadedStage:
        """Load a stage's weights.

        Args:
            stage: number of the stage.
            device: device to load to.
            sharing: number of stages that share the device's memory, including this one.

        Raises:
            ModelError: the checkpoint cannot be loaded.
        """

    def capacity(self, blocks: int) -> Capacity:
        """Return the capacity of a pipeline whose stages have `blocks` KV blocks each.

        Raises:
            SettingsError: the blocks hold no sequence.
        """
