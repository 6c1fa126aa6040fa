"""The parts of the attention contract other than the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from tdpipe.model.attention import AttentionBackend, BatchLayout, LayerKV
from tdpipe.model.attention.sdpa import SdpaAttention
from tests.support.ragged_attention import Heads, RaggedBatch, Row, make_batch, row_alone

if TYPE_CHECKING:
    from tdpipe.model.attention.cpu.backend import CpuAttention

_MIXED = [Row(1, 200), Row(60, 60), Row(1, 3), Row(50, 130), Row(2, 70)]
_HEADS = Heads(8, 4, 32)


def attend(
    backend: AttentionBackend,
    batch: RaggedBatch,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    return backend.attend(
        *(batch.query, batch.key, batch.value, batch.kv, batch.layout),
        scale=0.2,
        sliding_window=window,
        softcap=softcap,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (40, 20.0)])
def test_a_row_is_the_same_to_the_bit_alone_and_in_any_batch(
    cpu_attention: CpuAttention, window: int | None, softcap: float | None, dtype: torch.dtype
) -> None:
    batch = make_batch(_MIXED, _HEADS, dtype=dtype)
    together = attend(cpu_attention, batch.with_copied_cache(), window, softcap)
    starts = batch.layout.query_start.tolist()
    for row in range(len(_MIXED)):
        alone = attend(cpu_attention, row_alone(batch, row), window, softcap)
        assert torch.equal(alone, together[starts[row] : starts[row + 1]])


@pytest.mark.parametrize("rows", [_MIXED, [Row(1, 200)], [Row(300, 300)]])
def test_threads_do_not_change_a_bit(cpu_attention: CpuAttention, rows: list[Row]) -> None:
    batch = make_batch(rows, _HEADS)
    single = attend(cpu_attention, batch.with_copied_cache())
    torch.set_num_threads(2)
    assert torch.equal(attend(cpu_attention, batch), single)


def test_only_the_mapped_slots_are_written(backend: AttentionBackend) -> None:
    batch = make_batch(_MIXED, _HEADS, block_size=4)
    before = batch.with_copied_cache()
    attend(backend, batch)
    slots = batch.layout.slot_mapping
    for cache, old, new in (
        (batch.kv.keys, before.kv.keys, batch.key),
        (batch.kv.values, before.kv.values, batch.value),
    ):
        assert torch.equal(cache.view(-1, *new.shape[1:])[slots], new)
        old.view(-1, *new.shape[1:])[slots] = new
        torch.testing.assert_close(cache, old, rtol=0, atol=0, equal_nan=True)


def test_views_may_have_any_strides(backend: AttentionBackend) -> None:
    batch = make_batch(_MIXED, _HEADS)
    expected = attend(backend, batch.with_copied_cache())
    tokens = batch.query.shape[0]
    heads_first = batch.query.transpose(0, 1).contiguous().transpose(0, 1)
    fused = torch.cat([batch.key, torch.zeros(tokens, 3, 32), batch.value], dim=1)
    dim_first = batch.value.transpose(1, 2).contiguous().transpose(1, 2)
    pool = torch.stack([batch.kv.keys, batch.kv.values], dim=1)
    layout = batch.layout
    wide = torch.cat([layout.block_tables, torch.full((len(_MIXED), 7), -1)], dim=1)
    layout = replace(layout, block_tables=wide.int()[:, : layout.block_tables.shape[1]])
    for value in (fused[:, -4:], dim_first):
        kv = LayerKV(*pool.clone().unbind(1))
        strided = RaggedBatch(heads_first, fused[:, :4], value, kv, layout)
        torch.testing.assert_close(attend(backend, strided), expected)


def test_keys_before_the_window_are_not_read(backend: AttentionBackend) -> None:
    batch = make_batch([Row(1, 200), Row(30, 200)], _HEADS, block_size=8)
    expected = attend(backend, batch.with_copied_cache(), window=20)
    for row, first in ((0, 180), (1, 151)):
        table = batch.layout.block_tables[row]
        for cache in (batch.kv.keys, batch.kv.values):
            cache[table[: first // 8].long()] = torch.nan
            cache[int(table[first // 8]), : first % 8] = torch.nan
        table[: first // 8] = -1
    assert torch.equal(attend(backend, batch, window=20), expected)


def test_fixed_capacity_buffers_may_be_longer_than_the_batch(backend: AttentionBackend) -> None:
    batch = make_batch(_MIXED, _HEADS)
    expected = attend(backend, batch.with_copied_cache())
    layout = replace(
        batch.layout,
        query_start=torch.cat([batch.layout.query_start, torch.tensor([-7, 10**9]).int()]),
        context_len=torch.cat([batch.layout.context_len, torch.tensor([10**9]).int()]),
        slot_mapping=torch.cat([batch.layout.slot_mapping, torch.tensor([-1])]),
    )
    padded = RaggedBatch(batch.query, batch.key, batch.value, batch.kv, layout)
    assert torch.equal(attend(backend, padded), expected)


def test_an_empty_batch_gives_an_empty_result(backend: AttentionBackend) -> None:
    assert attend(backend, make_batch([], _HEADS)).shape == (0, 8, 32)


@pytest.mark.parametrize(
    ("dtype", "dim"), [(torch.float16, 32), (torch.float64, 32), (torch.float32, 320)]
)
def test_batches_that_the_kernel_does_not_support_go_to_sdpa(
    cpu_attention: CpuAttention, dtype: torch.dtype, dim: int
) -> None:
    batch = make_batch(_MIXED, Heads(4, 2, dim), dtype=dtype)
    expected = attend(SdpaAttention(), batch.with_copied_cache())
    assert torch.equal(attend(cpu_attention, batch), expected)


def _with(layout: BatchLayout, field: str, index: int | tuple[int, int], entry: int) -> BatchLayout:
    changed = getattr(layout, field).clone()
    changed[index] = entry
    return replace(layout, **{field: changed})


@pytest.mark.parametrize(
    ("field", "index", "entry"),
    [
        ("slot_mapping", 3, -1),
        ("slot_mapping", 3, 10**6),
        ("block_tables", (0, 2), -5),
        ("block_tables", (0, 2), 10**6),
        ("context_len", 1, 59),
        ("context_len", 0, 10**6),
        ("query_start", 1, 70),
        ("query_start", 0, -1),
    ],
)
def test_a_layout_that_refers_to_other_memory_is_refused(
    cpu_attention: CpuAttention, field: str, index: int | tuple[int, int], entry: int
) -> None:
    batch = make_batch(_MIXED, _HEADS)
    layout = _with(batch.layout, field, index, entry)
    wrong = RaggedBatch(batch.query, batch.key, batch.value, batch.kv, layout)
    with pytest.raises(ValueError, match=field):
        attend(cpu_attention, wrong)


def test_tensors_that_do_not_match_the_cache_are_refused(cpu_attention: CpuAttention) -> None:
    batch = make_batch(_MIXED, _HEADS)
    halved = LayerKV(batch.kv.keys[:, :8], batch.kv.values[:, :8])
    with pytest.raises(ValueError, match="KV cache"):
        attend(cpu_attention, replace(batch, kv=halved))
    mixed = LayerKV(batch.kv.keys.bfloat16(), batch.kv.values.bfloat16())
    with pytest.raises(ValueError, match="the same dtype"):
        attend(cpu_attention, replace(batch, kv=mixed))
    with pytest.raises(ValueError, match="int32"):
        attend(
            cpu_attention,
            replace(
                batch, layout=replace(batch.layout, context_len=batch.layout.context_len.long())
            ),
        )
