"""How many KV blocks a stage has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tdpipe.pipeline.host_memory import available_memory

if TYPE_CHECKING:
    from tdpipe.core.settings import CacheSettings

GPU_SHARE = 0.9
"""Of what is free beside the weights; the rest is for activations."""
HOST_SHARE = 0.5
"""Of what is free now: other stages may still be loading, and people use their machine for other
things too.
"""


@dataclass(frozen=True, slots=True)
class KVBudget:
    """Turns cache settings into blocks."""

    settings: CacheSettings
    useful_blocks: int
    """More than these can never be in use at once."""

    def blocks(self, block_bytes: int, device: torch.device, sharing: int) -> int:
        """Blocks for one stage whose weights are loaded.

        Args:
            block_bytes: bytes of one block over the stage's layers.
            device: where they shall be.
            sharing: stages on this host, this one included.
        """
        if self.settings.blocks is not None:
            return self.settings.blocks
        if self.settings.memory is not None:
            room = self.settings.memory * 2**30
        elif device.type == "cuda":
            room = torch.cuda.mem_get_info(device)[0] * GPU_SHARE
        else:
            room = available_memory() * HOST_SHARE / sharing
        return min(int(room // block_bytes), self.useful_blocks)
