"""The contract between a model's attention layers and the backends that compute attention.

A batch is ragged: rows of any length follow one another without padding, and each row's keys and values are in blocks
scattered over the KV cache. Backends differ in speed, and in results only by rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """The rows (sequences) of a ragged, unpadded batch, and the places of their KV in the cache.

    All tensors are int32 unless noted and on the model's device. They may be views of buffers with a fixed capacity.
    """

    query_start: Tensor
    """[R + 1]: row r has the tokens query_start[r]:query_start[r + 1] of the T batch tokens."""
    context_len: Tensor
    """[R]: number of KV tokens of row r, including the tokens of this step."""
    block_tables: Tensor
    """[R, max_blocks], contiguous within a row; entries after a row's last block are arbitrary."""
    slot_mapping: Tensor
    """[T] int64: KV slot (block * block_size + offset) of every batch token."""
    block_size: int
    rows: int
    tokens: int
    max_query: int
    """Number of queries of the row that has most."""
    max_context: int
    """Number of KV tokens of the row that has most."""


@dataclass(frozen=True, slots=True)
class LayerKV:
    """The KV cache of one layer, in the dtype of the layer's queries."""

    keys: Tensor
    """[num_blocks, block_size, kv_heads, head_dim]."""
    values: Tensor
    """Same shape as `keys`."""


class AttentionBackend(ABC):
    """The code that stores a step's keys and values and computes attention over the paged KV cache."""

    name: ClassVar[str]

    @abstractmethod
    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv: LayerKV,
        layout: BatchLayout,
        *,
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Store `key` and `value` at the layout's slots, then compute causal attention within each row.

        Query i of a row with n queries is at position context_len - n + i and sees the keys at positions up to its
        own. With a window of w it sees only the last w of these: the key at j if position - j < w, as in transformers.

        Args:
            query: [T, query_heads, head_dim]; a view with any strides, as `key` and `value` may be too.
            key: [T, kv_heads, head_dim]; query_heads is a multiple of kv_heads, and query head h
                reads kv head h // (query_heads // kv_heads).
            value: same shape as `key`.
            kv: the layer's cache, updated in place, in the dtype of `query`, `key` and `value`.
            layout: rows of the batch, which are decode rows and prefill chunks in any order.
            scale: factor of the scores.
            sliding_window: number of keys that a query sees, including its own; None for all.
            softcap: bound c of the scaled scores, which become c * tanh(score / c); None for no bound.

        Returns:
            [T, query_heads, head_dim] in the dtype of `query`.
        """
