"""The attention backend that calls the C kernel.

It uses ctypes, which needs no headers of Python or torch and releases the GIL during the call.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

import torch

from tdpipe.model.attention.base import AttentionBackend
from tdpipe.model.attention.cpu.build import KernelUnavailableError, build
from tdpipe.model.attention.sdpa import SdpaAttention

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tdpipe.model.attention.base import BatchLayout, LayerKV

_MAX_HEAD_DIM = 256
_DTYPES = (torch.float32, torch.bfloat16)
_MESSAGES = {
    1: "out of memory",
    2: "slot_mapping contains a slot outside the KV cache",
    3: "block_tables contains a block outside the KV cache",
    4: "query_start, context_len and the width of block_tables do not match",
}


class InstructionSet(IntEnum):
    """The variants of the kernel, ordered from slowest to fastest and numbered as in dispatch.c."""

    PORTABLE = 0
    AVX2 = 1
    AVX512 = 2


class _Call(ctypes.Structure):
    """The structure tdpipe_call of kernel.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "keys", "values")),
        *((name, ctypes.c_void_p) for name in ("output", "query_start", "context_len")),
        *((name, ctypes.c_void_p) for name in ("block_tables", "slot_mapping")),
        *((f"query_{step}_stride", ctypes.c_int64) for step in ("token", "head")),
        *((f"key_{step}_stride", ctypes.c_int64) for step in ("token", "head")),
        *((f"value_{step}_stride", ctypes.c_int64) for step in ("token", "head")),
        *((f"cache_{step}_stride", ctypes.c_int64) for step in ("block", "token", "head")),
        *((name, ctypes.c_int64) for name in ("table_stride", "table_columns", "rows", "tokens")),
        *((name, ctypes.c_int64) for name in ("query_heads", "kv_heads", "head_dim", "block_size")),
        *((name, ctypes.c_int64) for name in ("num_blocks", "bfloat16", "window", "threads")),
        *((name, ctypes.c_float) for name in ("scale", "softcap")),
    )


class CpuAttention(AttentionBackend):
    """Paged attention of decode and prefill rows in C, on as many threads as torch uses.

    A row's result is the same to the bit, whatever else is in the batch and however many threads compute it. Batches
    that the kernel does not support (dtypes other than float32 and bfloat16, heads wider than 256) go to sdpa.

    Args:
        instruction_set: variant to run; None for the fastest that the CPU supports.

    Raises:
        KernelUnavailableError: the kernel cannot be built or loaded on this machine.
        ValueError: the CPU does not support `instruction_set`.
    """

    name: ClassVar[str] = "cpu"

    def __init__(self, instruction_set: InstructionSet | None = None) -> None:
        library = _load(build())
        supported = [one for one in InstructionSet if library.tdpipe_supports(int(one))]
        if instruction_set is None:
            instruction_set = max(supported)
        elif instruction_set not in supported:
            raise ValueError(
                f"this CPU does not support {instruction_set.name}; leave instruction_set out"
            )
        self.instruction_set = instruction_set
        self._attend = library.tdpipe_attend
        self._attend.argtypes = (ctypes.POINTER(_Call), ctypes.c_int)
        self._attend.restype = ctypes.c_int
        self._sdpa = SdpaAttention()

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
        if query.dtype not in _DTYPES or query.shape[2] > _MAX_HEAD_DIM:
            return self._sdpa.attend(
                *(query, key, value, kv, layout),
                scale=scale,
                sliding_window=sliding_window,
                softcap=softcap,
            )
        _check(query, key, value, kv, layout)
        query, key, value = (
            part if part.stride(2) == 1 else part.contiguous() for part in (query, key, value)
        )
        output = torch.empty(query.shape, dtype=query.dtype)
        tokens, query_heads, head_dim = query.shape
        call = _Call(
            *(tensor.data_ptr() for tensor in (query, key, value, kv.keys, kv.values, output)),
            layout.query_start.data_ptr(),
            layout.context_len.data_ptr(),
            layout.block_tables.data_ptr(),
            layout.slot_mapping.data_ptr(),
            *query.stride()[:2],
            *key.stride()[:2],
            *value.stride()[:2],
            *kv.keys.stride()[:3],
            layout.block_tables.stride(0),
            layout.block_tables.shape[1],
            layout.rows,
            tokens,
            query_heads,
            key.shape[1],
            head_dim,
            layout.block_size,
            kv.keys.shape[0],
            query.dtype == torch.bfloat16,
            sliding_window or 0,
            torch.get_num_threads(),
            scale,
            softcap or 0.0,
        )
        if problem := self._attend(call, self.instruction_set):
            raise ValueError(_MESSAGES[problem])
        return output


def _load(library: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        problem = f"cannot load the compiled kernel ({error})"
        remedy = (
            f"install libgomp, delete {library}, or set XDG_CACHE_HOME to a directory that is not "
            "mounted noexec"
        )
        raise KernelUnavailableError(f"{problem}; {remedy}") from error


def _check(query: Tensor, key: Tensor, value: Tensor, kv: LayerKV, layout: BatchLayout) -> None:
    """Refuse inputs with which the kernel would access memory outside the tensors."""
    shapes = f"query {[*query.shape]}, key {[*key.shape]}, value {[*value.shape]}"
    if key.shape != value.shape or query.shape[::2] != key.shape[::2]:
        raise ValueError(f"the shapes {shapes} do not match")
    if query.shape[0] != layout.tokens or query.shape[1] % key.shape[1]:
        raise ValueError(f"{shapes} do not have {layout.tokens} tokens and whole groups of heads")
    if kv.keys.shape[1:] != (layout.block_size, *key.shape[1:]):
        raise ValueError(f"KV cache {[*kv.keys.shape]} does not match {shapes}")
    if kv.keys.shape != kv.values.shape or kv.keys.stride() != kv.values.stride():
        raise ValueError("keys and values of the KV cache must have the same shape and strides")
    if kv.keys.stride(3) != 1:
        raise ValueError("the KV cache must be contiguous within a head")
    if {key.dtype, value.dtype, kv.keys.dtype, kv.values.dtype} != {query.dtype}:
        raise ValueError("query, key, value and KV cache must have the same dtype")
    indices = (layout.query_start, layout.context_len, layout.block_tables)
    if any(index.dtype != torch.int32 for index in indices):
        raise ValueError("query_start, context_len and block_tables must be int32")
    if layout.slot_mapping.dtype != torch.int64:
        raise ValueError("slot_mapping must be int64")
    rows = min(layout.query_start.shape[0] - 1, *(index.shape[0] for index in indices[1:]))
    if rows < layout.rows or layout.slot_mapping.shape[0] < layout.tokens:
        raise ValueError(
            f"the layout's tensors are shorter than its {layout.rows} rows or {layout.tokens} tokens"
        )
