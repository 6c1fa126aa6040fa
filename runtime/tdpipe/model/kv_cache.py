"""The KV cache of a stage: a fixed number of blocks of keys and values in each of its layers.

It is allocated once at the start, so that a step never waits for memory.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import TYPE_CHECKING

import torch

from tdpipe.core.errors import SettingsError
from tdpipe.model.attention import LayerKV

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.model_sizes import ModelSizes

_HUGE_PAGE_BYTES = 2 * 1024 * 1024


class KVCache:
    """Blocks of keys and values in every layer of a stage.

    Host memory is occupied only as blocks are first written. Blocks that were never written hold arbitrary values,
    which no row may read.

    Args:
        sizes: sizes of the model, which give the number of KV heads and their dimension.
        layers: the stage's layers, numbered over the whole model.
        blocks: number of blocks.
        block_size: number of tokens in a block.
        dtype: type of keys and values, which is that of the model.
        device: device of the model.

    Raises:
        SettingsError: there is not enough memory.
    """

    def __init__(
        self,
        sizes: ModelSizes,
        layers: range,
        *,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self._first = layers.start
        shape = (blocks, block_size, sizes.kv_heads, sizes.head_dim)
        # torch has no error type of its own for host memory.
        out_of_memory = RuntimeError if device.type == "cpu" else torch.OutOfMemoryError
        self._layers = []
        for _ in layers:
            try:
                keys, values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
            except out_of_memory as error:
                size = 2 * len(layers) * math.prod(shape) * dtype.itemsize / 2**30
                raise SettingsError(
                    "cache.memory",
                    f"no room on {device} for {size:.2f} GiB of KV cache",
                    "set a smaller value, set fewer cache.blocks, or free memory",
                ) from error
            for cache in (keys, values):
                advise_huge_pages(cache)
            self._layers.append(LayerKV(keys, values))

    def layer(self, number: int) -> LayerKV:
        """Return the cache of layer `number`, counted over the whole model."""
        return self._layers[number - self._first]


def advise_huge_pages(tensor: Tensor) -> bool:
    """Ask the system for 2 MiB pages under the storage of `tensor`. Call it before the first write.

    A KV cache is read in scattered blocks, and with pages of 4 KiB nearly every block misses the TLB.

    Returns:
        Whether the system took the advice. It is false where the system does not know it, and for a tensor that is
        smaller than a huge page.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    start = -(-tensor.data_ptr() // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    length = (tensor.data_ptr() + tensor.nbytes - start) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
    if advice is None or length <= 0 or tensor.device.type != "cpu":
        return False
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(madvise(start, length, advice) == 0)
