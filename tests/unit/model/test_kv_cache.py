from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.core.errors import SettingsError
from tdpipe.model.description import describe_model
from tdpipe.model.kv_cache import KVCache, advise_huge_pages
from tests.support.checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def test_memory_that_the_system_refuses_is_an_error_in_one_line(tmp_path: Path) -> None:
    description = describe_model(tiny_checkpoint(tmp_path))
    with pytest.raises(SettingsError, match=r"^cache\.memory: no room on cpu for .* GiB") as caught:
        KVCache(
            description.sizes,
            range(2),
            blocks=2**40,
            block_size=16,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="the system has no such advice")
def test_a_large_tensor_keeps_its_contents_under_huge_pages() -> None:
    tensor = torch.arange(4_000_000)
    assert advise_huge_pages(tensor)
    assert torch.equal(tensor, torch.arange(4_000_000))


def test_a_tensor_smaller_than_a_huge_page_is_left_alone() -> None:
    assert not advise_huge_pages(torch.zeros(1000))
