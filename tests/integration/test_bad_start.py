"""A start that cannot succeed says in one line what is at fault and what to do, and leaves nothing behind. People meet
these lines before anything else of tdpipe, and Kubernetes shows the last one as the reason of a crash.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tdpipe.cli import main
from tests.support.endpoint import free_port
from tests.support.served_demo import started_demo

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO = Path(__file__).parents[2] / "examples" / "demo_model" / "checkpoint"


@dataclass(frozen=True, slots=True)
class Bad:
    """One thing that is wrong, and what the line must say."""

    at_fault: str
    remedy: str
    arguments: tuple[str, ...] = ()
    file: str | None = None
    """Content of the settings file."""
    environment: dict[str, str] = field(default_factory=dict)


SETTINGS = {
    "a port that does not exist": Bad("server.port", "65535", ("--port", "70000")),
    "no stages": Bad("pipeline.stages", "greater than or equal to 1", ("--stages", "0")),
    "an unknown policy": Bad(
        "scheduler.policy", "'adaptive', 'temporal', 'hybrid'", ("--policy", "fifo")
    ),
    "a missing file": Bad("--config", "give the path of", ("--config", "/nowhere.yaml")),
    "a wrong type in the file": Bad(
        "pipeline.stages", "valid integer", file="pipeline: {stages: two}"
    ),
    "an unknown field in the file": Bad("pipeline.stage", "stages", file="pipeline: {stage: 3}"),
    "an unknown section in the file": Bad("piplines", "pipeline", file="piplines: {stages: 3}"),
    "another version of the file": Bad("schema_version", "1", file="schema_version: 2"),
    "a wrong type in a variable": Bad(
        "pipeline.stages", "valid integer", environment={"TDPIPE_PIPELINE__STAGES": "two"}
    ),
    "an unknown field in a variable": Bad(
        "TDPIPE_PIPELINE__STAGE",
        "TDPIPE_PIPELINE__STAGES",
        environment={"TDPIPE_PIPELINE__STAGE": "3"},
    ),
    "an unknown section in a variable": Bad(
        "TDPIPE_PIPLINE__STAGES",
        "TDPIPE_PIPELINE__STAGES",
        environment={"TDPIPE_PIPLINE__STAGES": "3"},
    ),
}
FOR_THE_MODEL = {
    "more stages than layers": Bad("pipeline.stages", "use 1 to 6", ("--stages", "7")),
    "a partition of other layers": Bad(
        "pipeline.partition", "such as 3,3", file="pipeline: {partition: [3, 2]}"
    ),
    "a partition for other stages": Bad(
        "pipeline.partition", "such as 3,3", file="pipeline: {partition: [2, 2, 2]}"
    ),
    "a longer context than the model's": Bad(
        "model.max_context", "1024", file="model: {max_context: 1025}"
    ),
}


@pytest.fixture(autouse=True)
def own_settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TDPIPE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., list[str]]:
    """Starts with something bad, checks how it ended, and returns what came before the error."""

    def start(bad: Bad, *arguments: str, status: int = 2) -> list[str]:
        for name, value in bad.environment.items():
            monkeypatch.setenv(name, value)
        if bad.file is not None:
            (tmp_path / "tdpipe.yaml").write_text(bad.file)
            arguments += ("--config", str(tmp_path / "tdpipe.yaml"))
        with pytest.raises(SystemExit) as caught:
            main(["serve", *arguments, *bad.arguments])
        text = capsys.readouterr().err
        assert "Traceback" not in text
        *before, line = text.splitlines()
        assert line.startswith(f"error: {bad.at_fault}: ")
        assert bad.remedy in line
        assert caught.value.code == status
        return before

    return start


@pytest.mark.parametrize("bad", SETTINGS.values(), ids=SETTINGS)
def test_a_bad_setting_is_refused_before_anything_begins(
    refused: Callable[..., list[str]], bad: Bad
) -> None:
    # A setting that is accepted after all meets an error of the model, instead of a server.
    assert refused(bad, "--model", "/nowhere") == []


@pytest.mark.parametrize("bad", FOR_THE_MODEL.values(), ids=FOR_THE_MODEL)
def test_a_setting_that_does_not_fit_the_model_is_refused_before_ray_is_started(
    refused: Callable[..., list[str]], bad: Bad
) -> None:
    before = refused(bad, "--port", str(free_port()))
    assert not any("Ray" in line for line in before)


def test_a_taken_port_is_refused_before_anything_begins(
    refused: Callable[..., list[str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert refused(Bad("server.port", "pass another --port"), "--port", port) == []


def missing(_: Path) -> None:
    pass


def without_config(path: Path) -> None:
    shutil.copytree(DEMO, path, ignore=shutil.ignore_patterns("config.json"))


def pickled(path: Path) -> None:
    shutil.copytree(DEMO, path, ignore=shutil.ignore_patterns("*.safetensors"))
    (path / "pytorch_model.bin").write_bytes(b"")


def of_another_family(path: Path) -> None:
    shutil.copytree(DEMO, path)
    config = json.loads((DEMO / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (missing, "give the directory of a checkpoint"),
        (without_config, "give the directory of a checkpoint"),
        (pickled, "convert them to safetensors"),
        (of_another_family, "serve one of llama, "),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_refused_before_ray_is_started(
    refused: Callable[..., list[str]],
    tmp_path: Path,
    make: Callable[[Path], None],
    remedy: str,
) -> None:
    model = tmp_path / "model"
    make(model)
    bad = Bad("model.path", remedy, ("--model", str(model)))
    before = refused(bad, "--port", str(free_port()), status=1)
    assert not any("Ray" in line for line in before)


def test_a_kv_cache_without_room_is_refused_and_no_process_stays() -> None:
    """Only the stages know the room, so that Ray and they have been started by then."""
    with started_demo(TDPIPE_CACHE__MEMORY="1e-7") as server:
        assert server.await_end() == 2
        text = server.stderr()
        assert "stage 1: " in text
        assert "Traceback" not in text
        line = text.splitlines()[-1]
        assert line.startswith("error: cache.memory: no room for the KV of any sequence")
        assert "raise it" in line
        assert server.left_behind() == set()
