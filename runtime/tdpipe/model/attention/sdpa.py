"""The attention backend that calls torch's scaled_dot_product_attention: the reference, which runs on any device.

Attention is computed row by row. One call for the whole batch would need either padding or a mask over all pairs of the
batch's tokens, and measurements showed that both cost several times as much as the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import scaled_dot_product_attention

from tdpipe.model.attention.base import AttentionBackend

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.model.attention.base import BatchLayout, LayerKV


class SdpaAttention(AttentionBackend):
    """Attention that is computed row by row over gathered blocks."""

    name: ClassVar[str] = "sdpa"

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
        slots = layout.slot_mapping[: layout.tokens]
        block, offset = slots // layout.block_size, slots % layout.block_size
        kv.keys[block, offset] = key
        kv.values[block, offset] = value

        output = query.new_empty(query.shape)
        starts = layout.query_start[: layout.rows + 1].tolist()
        contexts = layout.context_len[: layout.rows].tolist()
        for row, context in enumerate(contexts):
            begin, end = starts[row], starts[row + 1]
            count = end - begin
            if count == 0:
                continue
            row_key, row_value = key[begin:end], value[begin:end]
            if count < context:
                # Keys before the first one that the row's first query sees need not be read.
                first = 0 if sliding_window is None else context - count + 1 - sliding_window
                row_key, row_value = _gather(kv, layout, row, max(0, first), context)
            output[begin:end] = _attend_row(
                *(query[begin:end], row_key, row_value),
                scale=scale,
                window=sliding_window,
                softcap=softcap,
            )
        return output


def _gather(
    kv: LayerKV, layout: BatchLayout, row: int, first: int, end: int
) -> tuple[Tensor, Tensor]:
    """Return keys and values at positions first:end of a row, each [end - first, kv_heads, head_dim]."""
    size = layout.block_size
    skipped = first // size
    blocks = layout.block_tables[row, skipped : -(-end // size)]
    positions = slice(first - skipped * size, end - skipped * size)
    return kv.keys[blocks].flatten(0, 1)[positions], kv.values[blocks].flatten(0, 1)[positions]


def _attend_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Compute attention of a row's last positions over `key`, which ends at the last of them."""
    count, length = query.shape[0], key.shape[0]
    q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
    triangular = count == length and (window is None or window >= length) and softcap is None
    mask = None if count == 1 or triangular else _visible(count, length, window, query.device)
    if softcap is not None:
        row = _attend_capped(q, k, v, mask, scale, softcap)
    else:
        row = scaled_dot_product_attention(
            *(q, k, v),
            attn_mask=mask,
            is_causal=triangular,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
    return row.squeeze(0).transpose(0, 1)


def _visible(count: int, length: int, window: int | None, device: torch.device) -> Tensor:
    """Return [count, length] bool: which keys each of the last `count` positions sees."""
    positions = torch.arange(length - count, length, device=device).unsqueeze(1)
    keys = torch.arange(length, device=device)
    visible = keys <= positions
    return visible if window is None else visible & (positions - keys < window)


def _attend_capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Compute attention with capped scores in float32, which torch's function does not offer."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ value.float()).to(query.dtype)
