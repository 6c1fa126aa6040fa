from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import PipelineError, SettingsError
from tdpipe.core.settings import load_settings
from tdpipe.model.description import describe_model
from tdpipe.pipeline.checkpoint_stages import CheckpointStages
from tests.support.checkpoints import tiny_checkpoint
from tests.support.step_driver import row_step, start_of

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 5
CONTEXT = 256


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def plan(path: Path, **sections: dict[str, Any]) -> CheckpointStages:
    return CheckpointStages.plan(load_settings(None, sections), describe_model(path))


def test_a_partition_in_the_settings_is_used(path: Path) -> None:
    given = plan(path, pipeline={"stages": 3, "partition": (1, 3, 1)})
    assert (given.stages, given.partition) == (3, (1, 3, 1))


def test_without_a_partition_all_layers_are_distributed(path: Path) -> None:
    balanced = plan(path, pipeline={"stages": 3})
    assert balanced.stages == 3
    assert sum(balanced.partition) == LAYERS


def test_a_longer_context_than_the_model_has_is_rejected(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.max_context: 257 is more than"):
        plan(path, model={"max_context": CONTEXT + 1})


def test_the_context_is_that_of_the_model_even_if_the_cache_holds_fewer_tokens(path: Path) -> None:
    stages = plan(path, scheduler={"max_running": 3}, cache={"block_size": 8})
    assert stages.capacity(10) == Capacity(blocks=10, block_size=8, slots=3, max_context=CONTEXT)


def test_a_stage_rejects_a_sequence_that_is_longer_than_the_cache(path: Path) -> None:
    stages = plan(path, pipeline={"stages": 1}, cache={"block_size": 8})
    executor = stages.load(0, torch.device("cpu"), sharing=1).executor(4)
    executor.apply(row_step(0, [(0, 0, 1, False)], (start_of(0, 1, [5] * 32),)))
    with pytest.raises(PipelineError, match="starts a sequence of 33 tokens"):
        executor.apply(row_step(1, [(0, 0, 1, False)], (start_of(0, 2, [5] * 33),)))


@pytest.mark.parametrize(
    ("cache", "field"),
    [({}, "memory"), ({"memory": 1.0}, "memory"), ({"blocks": 1, "block_size": 1}, "blocks")],
)
def test_a_cache_without_room_for_any_sequence_is_rejected(
    path: Path, cache: dict[str, Any], field: str
) -> None:
    with pytest.raises(SettingsError, match=rf"cache\.{field}: no room"):
        plan(path, cache=cache).capacity(cache.get("blocks", 0))


def test_the_number_of_blocks_depends_on_the_layers_of_the_stage(path: Path) -> None:
    settings = {"stages": 2, "partition": (1, 4)}
    kib = 1 / 2**20
    stages = plan(path, pipeline=settings, cache={"memory": 256 * kib, "block_size": 16})
    fitting = [
        stages.load(stage, torch.device("cpu"), sharing=2).fitting_blocks() for stage in (0, 1)
    ]
    # A token has 2 KV heads of 16 float32 keys and values per layer, which is 256 bytes; a block has 4 KiB.
    assert fitting == [64, 16]


def test_the_name_of_a_stage_tells_layers_dtype_and_attention(path: Path) -> None:
    model = {"attention": "sdpa", "dtype": "bfloat16"}
    stages = plan(path, model=model, pipeline={"stages": 2, "partition": (2, 3)})
    loaded = stages.load(1, torch.device("cpu"), sharing=2)
    assert loaded.name == "layers 2-4 (bfloat16, sdpa attention)"


def test_the_plan_can_be_pickled(path: Path) -> None:
    stages = plan(path)
    assert pickle.loads(pickle.dumps(stages)) == stages
