from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.core.errors import SettingsError
from tdpipe.core.settings import CacheSettings
from tdpipe.pipeline import kv_budget
from tdpipe.pipeline.cgroup import Cgroup
from tdpipe.pipeline.kv_budget import GPU_SHARE, HOST_SHARE, KVBudget, available_memory

if TYPE_CHECKING:
    from pathlib import Path

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MIB, GIB = 2**20, 2**30


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with 16 GiB and a GPU with 8 GiB free."""
    monkeypatch.setattr(kv_budget, "available_memory", lambda: 16 * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * GIB, 80 * GIB))


def blocks(
    settings: CacheSettings,
    block_bytes: int,
    *,
    useful: int = 10**9,
    sharing: int = 1,
    device: torch.device = CPU,
) -> int:
    return KVBudget(settings, useful).blocks(block_bytes, device, sharing)


def test_a_number_of_blocks_overrides_memory() -> None:
    assert blocks(CacheSettings(blocks=7, memory=1.0), GIB) == 7


def test_the_memory_setting_is_per_stage_even_if_stages_share_a_host() -> None:
    assert blocks(CacheSettings(memory=0.5), MIB, sharing=4) == 512


def test_no_more_blocks_are_allocated_than_can_be_in_use() -> None:
    assert blocks(CacheSettings(memory=0.5), MIB, useful=100) == 100


@pytest.mark.parametrize(("device", "share"), [(CPU, HOST_SHARE), (GPU, GPU_SHARE)])
def test_stages_that_share_memory_together_take_a_share_of_the_free_memory(
    device: torch.device, share: float
) -> None:
    room = (16 if device is CPU else 8) * 1024 * share
    assert blocks(CacheSettings(), MIB, device=device) == int(room)
    assert blocks(CacheSettings(), MIB, device=device, sharing=4) == int(room / 4)


@pytest.mark.parametrize(
    ("device", "sharing", "memory", "count"),
    [(CPU, 1, "16", 16384), (CPU, 3, "5.33", 5461), (GPU, 1, "8", 8192), (GPU, 3, "2.66", 2730)],
)
def test_a_request_for_more_than_is_free_is_rejected_with_the_maximum(
    device: torch.device, sharing: int, memory: str, count: int
) -> None:
    def allocate(settings: CacheSettings) -> int:
        return blocks(settings, MIB, device=device, sharing=sharing)

    with pytest.raises(SettingsError, match=rf"cache\.memory: .* at most {memory},"):
        allocate(CacheSettings(memory=100))
    assert allocate(CacheSettings(memory=float(memory))) > 0
    with pytest.raises(SettingsError, match=rf"cache\.blocks: .* at most {count},"):
        allocate(CacheSettings(blocks=count + 1))
    assert allocate(CacheSettings(blocks=count)) == count


def test_memory_that_is_not_free_is_accepted_if_no_sequence_can_use_it() -> None:
    assert blocks(CacheSettings(memory=100), MIB, useful=200) == 200


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 8192 * 1024), ("4194304", 4194304 - 1048576 + 4096), ("1000", 0)],
)
def test_the_limit_of_a_container_bounds_the_available_memory(
    tmp_path: Path, limit: str, expected: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 16384 kB\nMemAvailable:    8192 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("1048576\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 4096\n")
    (tmp_path / "membership").write_text("0::/\n")
    cgroup = Cgroup(tmp_path, tmp_path / "membership")
    assert available_memory(tmp_path / "meminfo", cgroup) == expected


def test_without_control_groups_the_host_bounds_the_available_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable:    8192 kB\n")
    cgroup = Cgroup(tmp_path, tmp_path / "none")
    assert available_memory(tmp_path / "meminfo", cgroup) == 8192 * 1024
