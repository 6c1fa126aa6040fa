"""The number of KV blocks that a stage has room for.

It follows from the settings, or else from the memory that is free on the device after the weights are loaded. On CPUs
a container's limit counts in addition to the host's memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tdpipe.core.errors import SettingsError
from tdpipe.pipeline.cgroup import Cgroup

if TYPE_CHECKING:
    from tdpipe.core.settings import CacheSettings

GPU_SHARE = 0.9
"""Share of a GPU's memory, free after loading the weights, that the KV cache takes. Activations need the rest."""
HOST_SHARE = 0.5
"""Share of the host's free memory that the KV cache takes. Other stages may still be loading, and other programs need
memory too."""

_GIB = 2**30
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class KVBudget:
    """The rule that turns cache settings into a number of blocks."""

    settings: CacheSettings
    useful_blocks: int
    """Maximum number of blocks that can be in use at once."""

    def blocks(self, block_bytes: int, device: torch.device, sharing: int) -> int:
        """Compute the number of blocks for one stage whose weights are loaded.

        Args:
            block_bytes: bytes of one block over all layers of the stage.
            device: device that the blocks will be on.
            sharing: number of stages that share the device's memory, including this one.

        Raises:
            SettingsError: `cache.blocks` or `cache.memory` requests more than is free.
        """
        on_gpu = device.type == "cuda"
        free = (torch.cuda.mem_get_info(device)[0] if on_gpu else available_memory()) / sharing
        if self.settings.blocks is not None:
            blocks, field = self.settings.blocks, "cache.blocks"
            maximum = f"{int(free // block_bytes)}"
        elif self.settings.memory is not None:
            blocks, field = self._fill(self.settings.memory * _GIB, block_bytes), "cache.memory"
            maximum = f"{math.floor(free / _GIB * 100) / 100:g}"
        else:
            return self._fill(free * (GPU_SHARE if on_gpu else HOST_SHARE), block_bytes)
        # The host allocates memory only when a block is first written, so without this check a cache
        # that is too large would kill the stage while it serves requests.
        if blocks * block_bytes > free:
            needed = f"{blocks * block_bytes / _GIB:.2f} GiB of KV cache"
            problem = f"{needed} on a stage for which {free / _GIB:.2f} GiB are free"
            raise SettingsError(field, problem, f"set at most {maximum}, or free memory")
        return blocks

    def _fill(self, room: float, block_bytes: int) -> int:
        return min(int(room // block_bytes), self.useful_blocks)


def available_memory(meminfo: Path = _MEMINFO, cgroup: Cgroup | None = None) -> int:
    """Return the bytes that this process may still take.

    That is what the host has free or can free, or what the container's limit leaves if that is less.

    Args:
        meminfo: the kernel's report on the host's memory (proc(5)).
        cgroup: control groups of this process.
    """
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    host = int(fields["MemAvailable"].split()[0]) * 1024
    left = (cgroup or Cgroup()).memory_left()
    return host if left is None else min(host, left)
