from __future__ import annotations

import mmap

import pytest
import torch

from tdpipe.model.attention.cpu import advise_huge_pages


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="the system has no such advice")
def test_a_large_tensor_keeps_its_contents_under_huge_pages() -> None:
    tensor = torch.arange(4_000_000)
    assert advise_huge_pages(tensor)
    assert torch.equal(tensor, torch.arange(4_000_000))


def test_a_tensor_smaller_than_a_huge_page_is_left_alone() -> None:
    assert not advise_huge_pages(torch.zeros(1000))
