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
    """KV cache of `blocks` blocks with `block_size` tokens each in every layer of a stage.

    The host's memory is taken only when a block is first written. A block that was never written holds garbage, which
    no row may read.

    Args:
        sizes: sizes of the model, of which the KV heads are used.
        layers: the stage's layers, numbered over the whole model.
        blocks: number of blocks.
        block_size: number of tokens in a block.
        dtype: data type of keys and values, which is the model's.
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
        # torch raises no error of its own where the host's memory runs out.
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
        """Return the cache of layer `number`, counted over the whole model."""
        return self._layers[number - self._first]
