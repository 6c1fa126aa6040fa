"""The contract between a model's attention layers and the code that computes attention.

A batch is ragged: rows of any length stand one behind the other without padding, and each row's
keys and values lie in blocks scattered over the KV cache. Backends differ in speed, never in result
beyond rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Where each row (sequence) of a ragged, unpadded batch sits, and where its KV lives.

    All tensors are int32 unless noted, on the model's device; they may be views of fixed-capacity
    buffers.
    """

    query_start: Tensor
    """[R+1]: row r owns tokens query_start[r]:query_start[r+1] of the T batch tokens."""
    context_len: Tensor
    """[R]: KV tokens of row r including this step's own tokens."""
    block_tables: Tensor
    """[R, max_blocks], contiguous within a row; entries past the need are arbitrary valid ints."""
    slot_mapping: Tensor
    """[T] int64: flat KV slot (block * block_size + offset) of every batch token."""
    block_size: int
    rows: int
    tokens: int
    max_query: int
    """Longest row's query count."""
    max_context: int
    """Longest row's context."""


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's KV cache, in the dtype of the layer's queries."""

    keys: Tensor
    """[num_blocks, block_size, kv_heads, head_dim]."""
    values: Tensor
    """Same shape as `keys`."""


class AttentionBackend(ABC):
    """Stores a step's keys and values and attends over the paged KV cache."""

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
        """Store `key` and `value` at the layout's slots, then attend causally row by row.

        Query i of a row with n queries stands at position context_len - n + i and sees the keys at
        positions up to its own; under a window of w only the last w of these (transformers' rule:
        position - j < w).

        Args:
            query: [T, query_heads, head_dim]; a view of any strides, as may `key` and `value` be.
            key: [T, kv_heads, head_dim]; query_heads is a multiple of kv_heads, and query head h
                reads kv head h // (query_heads // kv_heads).
            value: same shape as `key`.
            kv: the layer's cache, updated in place; one dtype with `query`, `key` and `value`.
            layout: rows of the batch, decodes and prefill chunks in any order.
            scale: factor of the scores.
            sliding_window: keys visible to a query, its own included; None is all.
            softcap: bound c of the scaled scores, c * tanh(score / c); None is no bound.

        Returns:
            [T, query_heads, head_dim], in the dtype of `query`.
        """
