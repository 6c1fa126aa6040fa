from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tdpipe.core.errors import ModelError
from tdpipe.core.settings import load_settings
from tdpipe.model.description import describe_model
from tdpipe.pipeline.checkpoint_stages import CheckpointStages
from tdpipe.pipeline.start import start_pipeline
from tests.support.checkpoints import Reference, tiny_checkpoint
from tests.support.step_driver import Driver

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = 25


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(("host", "stages"), [("in_process", 1), ("in_process", 3), ("ray", 2)])
@pytest.mark.usefixtures("ray_cluster")
def test_a_pipeline_generates_the_tokens_of_transformers(
    path: Path, host: str, stages: int
) -> None:
    lines: list[str] = []
    sections: dict[str, dict[str, Any]] = {
        "pipeline": {"host": host, "stages": stages},
        "scheduler": {"max_running": 8},
        "cache": {"blocks": 64},
    }
    settings = load_settings(None, sections)
    pipeline = start_pipeline(
        settings, CheckpointStages.plan(settings, describe_model(path)), lines.append
    )
    try:
        prompts, expected = zip(*Reference(path).prompts([3, 40, 17, 1], TOKENS), strict=True)
        driver = Driver(pipeline, in_flight=4, micro_batches=2)
        assert driver.generate(list(prompts), TOKENS) == list(expected)
        assert all(min(result.busy) > 0 for result in driver.results)
    finally:
        pipeline.close()
    assert sum(": layers " in line for line in lines) == stages


@pytest.mark.usefixtures("ray_cluster")
def test_a_broken_checkpoint_fails_the_start_with_one_line(path: Path, tmp_path: Path) -> None:
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:2000])
    settings = load_settings(None, {"pipeline": {"stages": 1}})
    with pytest.raises(ModelError, match=r"^model\.path: .*") as caught:
        start_pipeline(settings, CheckpointStages.plan(settings, describe_model(tmp_path)), print)
    assert "\n" not in str(caught.value)
    assert caught.value.stage == 0
