from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.core.errors import SettingsError
from tdpipe.model.description import describe_model
from tdpipe.model.kv_cache import KVCache
from tests.support.checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def test_memory_that_the_system_refuses_is_told_in_one_line(tmp_path: Path) -> None:
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
