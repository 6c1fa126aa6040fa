"""How many KV blocks a stage has room for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tdpipe.core.errors import SettingsError
from tdpipe.pipeline.host_memory import available_memory

if TYPE_CHECKING:
    from tdpipe.core.settings import CacheSettings

GIB = 2**30
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
            sharing: stages that share the device's memory, this one included.

        Raises:
            SettingsError: `cache.blocks` or `cache.memory` asks for more than is free.
        """
        on_gpu = device.type == "cuda"
        free = (torch.cuda.mem_get_info(device)[0] if on_gpu else available_memory()) / sharing
        if self.settings.blocks is not None:
            blocks, field = self.settings.blocks, "cache.blocks"
            most = f"{int(free // block_bytes)}"
        elif self.settings.memory is not None:
            blocks, field = self._fill(self.settings.memory * GIB, block_bytes), "cache.memory"
            most = f"{math.floor(free / GIB * 100) / 100:g}"
        else:
            return self._fill(free * (GPU_SHARE if on_gpu else HOST_SHARE), block_bytes)
        # The host's memory is taken only as blocks are first written: unchecked, a cache that is
        # too large would end the stage in the middle of its service.
        if blocks * block_bytes > free:
            needed = f"{blocks * block_bytes / GIB:.2f} GiB of KV cache"
            problem = f"{needed} on a stage for which {free / GIB:.2f} GiB are free"
            raise SettingsError(field, problem, f"set at most {most}, or free memory")
        return blocks

    def _fill(self, room: float, block_bytes: int) -> int:
        return min(int(room // block_bytes), self.useful_blocks)
