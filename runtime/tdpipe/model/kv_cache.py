"""A stage's KV cache: fixed blocks of keys and values for each of its layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from tdpipe.core.errors import SettingsError
from tdpipe.model.attention import LayerKV
from tdpipe.model.attention.cpu import advise_huge_pages

if TYPE_CHECKING:
    from tdpipe.core.model_sizes import ModelSizes


class KVCache:
    """`blocks` blocks of `block_size` tokens in every layer of a stage.

    Memory of the host is taken as blocks are first written; what was never written is garbage,
    which no row may read.

    Args:
        sizes: the model's, of which the KV heads count.
        layers: the stage's layers, numbered over the whole model.
        blocks: number of blocks.
        block_size: tokens in a block.
        dtype: of keys and values: the model's.
        device: the model's.

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
        # For the host's memory torch has no error of its own.
        lacking = RuntimeError if device.type == "cpu" else torch.OutOfMemoryError
        self._layers = []
        for _ in layers:
            try:
                keys, values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
            except lacking as error:
                size = 2 * len(layers) * math.prod(shape) * dtype.itemsize / 2**30
                raise SettingsError(
                    "cache.memory",
                    f"no room on {device} for {size:.2f} GiB of KV cache",
                    "set less, or fewer cache.blocks, or free memory",
                ) from error
            for cache in (keys, values):
                advise_huge_pages(cache)
            self._layers.append(LayerKV(keys, values))

    def layer(self, number: int) -> LayerKV:
        """The cache of layer `number`, counted over the whole model."""
        return self._layers[number - self._first]
