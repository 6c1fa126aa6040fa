"""Every backend is compared with attention that is computed from its definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.masking_utils import sliding_window_causal_mask_function

from tests.support.ragged_attention import (
    Heads,
    RaggedBatch,
    Row,
    dense_attention,
    make_batch,
    visible,
)

if TYPE_CHECKING:
    from tdpipe.model.attention import AttentionBackend

_MIXED = [
    Row(1, 1),
    Row(1, 130),
    Row(17, 17),
    Row(70, 150),
    Row(1, 64),
    Row(3, 65),
    Row(0, 9),
    Row(130, 130),
    Row(2, 2),
]


def assert_attends(
    backend: AttentionBackend,
    batch: RaggedBatch,
    *,
    window: int | None = None,
    softcap: float | None = None,
    rounding: float = 5e-6,
) -> None:
    scale = batch.query.shape[2] ** -0.5
    expected = dense_attention(batch, scale, window, softcap)
    got = backend.attend(
        *(batch.query, batch.key, batch.value, batch.kv, batch.layout),
        scale=scale,
        sliding_window=window,
        softcap=softcap,
    )
    assert got.shape == batch.query.shape
    assert got.dtype == batch.query.dtype
    # Rounding the result to bfloat16 adds a relative error of up to 2^-9; torch's own weights in bfloat16 add more.
    exact = batch.query.dtype == torch.float32
    rtol, atol = (4 * rounding, rounding) if exact else (2e-2, 2e-2)
    torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [8, 16, 64, 80, 128, 256])
@pytest.mark.parametrize("group", [1, 2, 4, 7])
def test_head_shapes(backend: AttentionBackend, group: int, dim: int, dtype: torch.dtype) -> None:
    assert_attends(backend, make_batch(_MIXED, Heads(2 * group, 2, dim), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [Heads(16, 1, 32), Heads(96, 96, 8), Heads(80, 8, 16)])
def test_many_heads(backend: AttentionBackend, heads: Heads, dtype: torch.dtype) -> None:
    assert_attends(backend, make_batch(_MIXED, heads, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 5, 33, 100])
def test_head_dims_that_do_not_fill_a_register(
    backend: AttentionBackend, dim: int, dtype: torch.dtype
) -> None:
    assert_attends(backend, make_batch(_MIXED, Heads(4, 2, dim), dtype=dtype))


@pytest.mark.parametrize("block_size", [1, 4, 16, 32])
@pytest.mark.parametrize("window", [None, 1, 5, 64, 100, 1000])
def test_windows_and_block_sizes(
    backend: AttentionBackend, window: int | None, block_size: int
) -> None:
    batch = make_batch(_MIXED, Heads(4, 2, 16), block_size=block_size)
    assert_attends(backend, batch, window=window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("softcap", [0.5, 3.0, 50.0])
def test_softcap(
    backend: AttentionBackend, softcap: float, window: int | None, dtype: torch.dtype
) -> None:
    batch = make_batch(_MIXED, Heads(6, 2, 24), dtype=dtype)
    assert_attends(backend, batch, window=window, softcap=softcap)


def test_scores_far_from_zero(backend: AttentionBackend) -> None:
    batch = make_batch(_MIXED, Heads(4, 2, 32))
    batch.query.mul_(30.0)
    # The relative error of a weight is the absolute error of its score, and scores are hundreds in float32.
    assert_attends(backend, batch, rounding=2e-4)


@st.composite
def _rows(draw: st.DrawFn) -> list[Row]:
    queries = st.one_of(st.just(1), st.integers(0, 70))
    drawn = draw(st.lists(st.tuples(queries, st.integers(0, 140)), min_size=1, max_size=6))
    return [Row(count, count + prefix) for count, prefix in drawn]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=_rows(),
    group=st.integers(1, 14),
    kv_heads=st.integers(1, 3),
    dim=st.integers(1, 48),
    block_size=st.integers(1, 33),
    window=st.none() | st.integers(1, 150),
    softcap=st.none() | st.floats(0.5, 60.0),
    threads=st.integers(1, 2),
    seed=st.integers(0, 2**31),
)
def test_any_ragged_batch(
    backend: AttentionBackend,
    rows: list[Row],
    group: int,
    kv_heads: int,
    dim: int,
    block_size: int,
    window: int | None,
    softcap: float | None,
    threads: int,
    seed: int,
) -> None:
    torch.set_num_threads(threads)
    heads = Heads(group * kv_heads, kv_heads, dim)
    batch = make_batch(rows, heads, block_size=block_size, seed=seed)
    assert_attends(backend, batch, window=window, softcap=softcap)


def test_the_window_is_the_same_as_in_transformers() -> None:
    rule = sliding_window_causal_mask_function(5)
    positions, keys = torch.arange(3, 12).unsqueeze(1), torch.arange(12)
    torch.testing.assert_close(visible(9, 12, 5), rule(0, 0, positions, keys))
