from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.core.settings import CacheSettings
from tdpipe.pipeline.host_memory import available_memory
from tdpipe.pipeline.kv_budget import KVBudget

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
GIB = 2**30


def blocks(
    settings: CacheSettings, block_bytes: int, *, useful: int = 10**9, sharing: int = 1
) -> int:
    return KVBudget(settings, useful).blocks(block_bytes, CPU, sharing)


def test_a_number_of_blocks_overrides_memory() -> None:
    assert blocks(CacheSettings(blocks=7, memory=1.0), GIB) == 7


def test_memory_is_gibibytes_per_stage_however_many_share_the_host() -> None:
    assert blocks(CacheSettings(memory=0.5), 2**20, sharing=4) == 512


def test_blocks_that_nothing_could_use_are_not_taken() -> None:
    assert blocks(CacheSettings(memory=0.5), 2**20, useful=100) == 100


def test_stages_of_one_host_share_its_memory() -> None:
    alone = blocks(CacheSettings(), 2**20)
    shared = blocks(CacheSettings(), 2**20, sharing=4)
    # Memory comes and goes on a busy host, but not by a factor of two.
    assert 0 < shared < alone / 2


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 8192 * 1024), ("4194304", 4194304 - 1048576 + 4096), ("1000", 0)],
)
def test_a_container_is_held_to_its_own_limit(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 16384 kB\nMemAvailable:    8192 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("1048576\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 4096\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) == expected


def test_a_host_without_control_groups_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable:    8192 kB\n")
    assert available_memory(tmp_path / "meminfo", tmp_path / "none") == 8192 * 1024
