"""Ragged batches over a paged KV cache, and attention over them computed from its definition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdpipe.model.attention import BatchLayout, LayerKV


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence whose context of `context` tokens ends with `queries` new ones."""

    queries: int
    context: int


@dataclass(frozen=True, slots=True)
class Heads:
    """Number of query heads and KV heads, and their dimension."""

    query: int
    kv: int
    dim: int


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """Inputs of one attention call. Cache entries that no row may read are NaN."""

    query: Tensor
    key: Tensor
    value: Tensor
    kv: LayerKV
    layout: BatchLayout

    def with_copied_cache(self) -> RaggedBatch:
        """Return the same inputs over a copy of the cache."""
        kv = LayerKV(self.kv.keys.clone(), self.kv.values.clone())
        return RaggedBatch(self.query, self.key, self.value, kv, self.layout)


def make_batch(
    rows: list[Row],
    heads: Heads,
    *,
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> RaggedBatch:
    """Return random tensors over blocks in random order, with garbage after each row's last block."""
    random = torch.Generator().manual_seed(seed)
    block_counts = [-(-row.context // block_size) for row in rows]
    blocks = torch.randperm(sum(block_counts) + 3, generator=random).int()
    width = max(block_counts, default=0) + 2
    tables = torch.randint(-(2**31), 2**31 - 1, (len(rows), width), generator=random).int()
    shape = (len(blocks), block_size, heads.kv, heads.dim)
    kv = LayerKV(
        torch.full(shape, torch.nan, dtype=dtype), torch.full(shape, torch.nan, dtype=dtype)
    )
    slots, starts = [torch.empty(0, dtype=torch.int64)], [0]
    for row, (sequence, count) in enumerate(zip(rows, block_counts, strict=True)):
        tables[row, :count], blocks = blocks[:count], blocks[count:]
        positions = torch.arange(sequence.context)
        slot = tables[row].long()[positions // block_size] * block_size + positions % block_size
        earlier = slot[: sequence.context - sequence.queries]
        for cache in (kv.keys, kv.values):
            past = torch.randn(len(earlier), heads.kv, heads.dim, generator=random)
            cache.view(-1, heads.kv, heads.dim)[earlier] = past.to(dtype)
        slots.append(slot[len(earlier) :])
        starts.append(starts[-1] + sequence.queries)
    tokens = starts[-1]
    layout = BatchLayout(
        query_start=torch.tensor(starts, dtype=torch.int32),
        context_len=torch.tensor([row.context for row in rows], dtype=torch.int32),
        block_tables=tables,
        slot_mapping=torch.cat(slots),
        block_size=block_size,
        rows=len(rows),
        tokens=tokens,
        max_query=max((row.queries for row in rows), default=0),
        max_context=max((row.context for row in rows), default=0),
    )
    return RaggedBatch(
        query=torch.randn(tokens, heads.query, heads.dim, generator=random).to(dtype),
        key=torch.randn(tokens, heads.kv, heads.dim, generator=random).to(dtype),
        value=torch.randn(tokens, heads.kv, heads.dim, generator=random).to(dtype),
        kv=kv,
        layout=layout,
    )


def row_alone(batch: RaggedBatch, row: int) -> RaggedBatch:
    """Return one row of `batch` as a batch, over a copy of the cache."""
    layout = batch.layout
    begin, end = layout.query_start[row : row + 2].tolist()
    context = int(layout.context_len[row])
    alone = BatchLayout(
        query_start=torch.tensor([0, end - begin], dtype=torch.int32),
        context_len=layout.context_len[row : row + 1],
        block_tables=layout.block_tables[row : row + 1],
        slot_mapping=layout.slot_mapping[begin:end],
        block_size=layout.block_size,
        rows=1,
        tokens=end - begin,
        max_query=end - begin,
        max_context=context,
    )
    kv = LayerKV(batch.kv.keys.clone(), batch.kv.values.clone())
    query, key, value = (part[begin:end] for part in (batch.query, batch.key, batch.value))
    return RaggedBatch(query, key, value, kv, alone)


def visible(queries: int, context: int, window: int | None) -> Tensor:
    """Return [queries, context] bool: the keys that each of a row's last positions sees."""
    positions = torch.arange(context - queries, context).unsqueeze(1)
    keys = torch.arange(context)
    return (keys <= positions) & (positions - keys < (context if window is None else window))


def dense_attention(
    batch: RaggedBatch, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """Return attention computed from its definition in float64, over a copy of the cache."""
    layout = batch.layout
    flat = (-1, *batch.key.shape[1:])
    caches = [cache.double().view(flat) for cache in (batch.kv.keys, batch.kv.values)]
    for cache, new in zip(caches, (batch.key, batch.value), strict=True):
        cache[layout.slot_mapping] = new.double()
    output = torch.empty(batch.query.shape, dtype=torch.float64)
    groups = batch.query.shape[1] // batch.key.shape[1]
    for row, context in enumerate(layout.context_len.tolist()):
        begin, end = layout.query_start[row : row + 2].tolist()
        positions = torch.arange(context)
        table = layout.block_tables[row].long()
        slots = table[positions // layout.block_size] * layout.block_size
        slots += positions % layout.block_size
        seen = positions >= (
            0 if window is None else end - begin and context - (end - begin) - window + 1
        )
        slots = torch.where(seen, slots, slots[-1] if context else slots)
        key, value = (cache[slots].repeat_interleave(groups, 1) for cache in caches)
        scores = torch.einsum("qhd,khd->hqk", batch.query[begin:end].double(), key) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~visible(end - begin, context, window), -torch.inf)
        output[begin:end] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
    return output
