"""Huge pages for large tensors.

A KV cache is read in scattered blocks, and with pages of 4 KiB nearly each block misses the TLB.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_HUGE_PAGE = 2 * 1024 * 1024


def advise_huge_pages(tensor: Tensor) -> bool:
    """Ask the system for 2 MiB pages under `tensor`'s storage; call it before the first write.

    Returns:
        Whether the advice was taken: false where the system knows none, and for a tensor smaller
        than a huge page.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    start = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
    length = (tensor.data_ptr() + tensor.nbytes - start) // _HUGE_PAGE * _HUGE_PAGE
    if advice is None or length <= 0 or tensor.device.type != "cpu":
        return False
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(madvise(start, length, advice) == 0)
