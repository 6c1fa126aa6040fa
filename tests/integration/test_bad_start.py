"""A failed start prints one line with the cause and the remedy, and leaves no process behind.

These lines are the first that a new user sees, and Kubernetes shows the last one as the reason of a crash.
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
import torch

from tdpipe.cli import main
from tdpipe.core.errors import ExitCode
from tests.support.endpoint import free_port
from tests.support.served_demo import started_demo

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO = Path(__file__).parents[2] / "examples" / "demo_model" / "checkpoint"


@dataclass(frozen=True, slots=True)
class BadStart:
    """An invalid start, and the parts of the error line that it must print."""

    setting: str
    remedy: str
    arguments: tuple[str, ...] = ()
    file: str | None = None
    """Content of the settings file; None passes no file."""
    environment: dict[str, str] = field(default_factory=dict)


SETTINGS = {
    "a port that does not exist": BadStart("server.port", "65535", ("--port", "70000")),
    "no stages": BadStart("pipeline.stages", "greater than or equal to 1", ("--stages", "0")),
    "an unknown policy": BadStart(
        "scheduler.policy", "'adaptive', 'temporal', 'hybrid'", ("--policy", "fifo")
    ),
    "a missing file": BadStart("--config", "give the path of", ("--config", "/nowhere.yaml")),
    "a wrong type in the file": BadStart(
        "pipeline.stages", "valid integer", file="pipeline: {stages: two}"
    ),
    "an unknown field in the file": BadStart(
        "pipeline.stage", "stages", file="pipeline: {stage: 3}"
    ),
    "an unknown section in the file": BadStart(
        "piplines", "pipeline", file="piplines: {stages: 3}"
    ),
    "another version of the file": BadStart("schema_version", "1", file="schema_version: 2"),
    "a wrong type in a variable": BadStart(
        "pipeline.stages", "valid integer", environment={"TDPIPE_PIPELINE__STAGES": "two"}
    ),
    "an unknown field in a variable": BadStart(
        "TDPIPE_PIPELINE__STAGE",
        "TDPIPE_PIPELINE__STAGES",
        environment={"TDPIPE_PIPELINE__STAGE": "3"},
    ),
    "an unknown section in a variable": BadStart(
        "TDPIPE_PIPLINE__STAGES",
        "TDPIPE_PIPELINE__STAGES",
        environment={"TDPIPE_PIPLINE__STAGES": "3"},
    ),
}
FOR_THE_MODEL = {
    "more stages than layers": BadStart("pipeline.stages", "use 1 to 6", ("--stages", "7")),
    "a partition of other layers": BadStart(
        "pipeline.partition", "such as 3,3", file="pipeline: {partition: [3, 2]}"
    ),
    "a partition for other stages": BadStart(
        "pipeline.partition", "such as 3,3", file="pipeline: {partition: [2, 2, 2]}"
    ),
    "a longer context than the model's": BadStart(
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
    """Function that runs `tdpipe serve`, checks the error line and the exit code, and returns the lines before it."""

    def start(bad: BadStart, *arguments: str) -> list[str]:
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
        assert line.startswith(f"error: {bad.setting}: ")
        assert bad.remedy in line
        assert caught.value.code == ExitCode.CONFIGURATION
        return before

    return start


@pytest.mark.parametrize("bad", SETTINGS.values(), ids=SETTINGS)
def test_a_bad_setting_is_rejected_before_anything_starts(
    refused: Callable[..., list[str]], bad: BadStart
) -> None:
    # If the setting were accepted, the missing model would fail the start.
    assert refused(bad, "--model", "/nowhere") == []


@pytest.mark.parametrize("bad", FOR_THE_MODEL.values(), ids=FOR_THE_MODEL)
def test_a_setting_that_does_not_fit_the_model_is_rejected_before_ray_starts(
    refused: Callable[..., list[str]], bad: BadStart
) -> None:
    before = refused(bad, "--port", str(free_port()))
    assert not any("Ray" in line for line in before)


def test_more_stages_than_layers_are_refused_before_the_port_is_taken(
    refused: Callable[..., list[str]],
) -> None:
    assert refused(FOR_THE_MODEL["more stages than layers"], "--port", str(free_port())) == []


def test_a_device_that_is_not_there_is_refused_before_ray_starts(
    refused: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    missing_gpu = BadStart("model.device", "cpu", ("--device", "cuda"))
    before = refused(missing_gpu, "--port", str(free_port()))
    assert not any("Ray" in line for line in before)


def test_a_model_is_named_with_or_without_its_option_but_not_twice(
    refused: Callable[..., list[str]],
) -> None:
    missing = BadStart("model.path", "give the directory", ("/nowhere",))
    assert refused(missing) == []
    refused(BadStart("--model", "give one of them", ("/nowhere", "--model", "/elsewhere")))


def test_a_home_directory_is_expanded_where_no_shell_does_it(
    refused: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    missing = "no such directory: /home/somebody/model"
    assert refused(BadStart("model.path", missing, file="model: {path: ~/model}")) == []


def test_a_taken_port_is_refused_before_anything_begins(
    refused: Callable[..., list[str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert refused(BadStart("server.port", "pass another --port"), "--port", port) == []


def missing(_: Path) -> None:
    pass


def without_config(path: Path) -> None:
    shutil.copytree(DEMO, path, ignore=shutil.ignore_patterns("config.json"))


def pickled(path: Path) -> None:
    shutil.copytree(DEMO, path, ignore=shutil.ignore_patterns("*.safetensors"))
    (path / "pytorch_model.bin").write_bytes(b"")


def with_unsupported_family(path: Path) -> None:
    shutil.copytree(DEMO, path)
    config = json.loads((DEMO / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (missing, "give the directory of a checkpoint"),
        (without_config, "give the directory of a checkpoint"),
        (pickled, "convert them to safetensors"),
        (with_unsupported_family, "serve one of llama, "),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_rejected_before_ray_starts(
    refused: Callable[..., list[str]],
    tmp_path: Path,
    make: Callable[[Path], None],
    remedy: str,
) -> None:
    model = tmp_path / "model"
    make(model)
    bad = BadStart("model.path", remedy, ("--model", str(model)))
    assert refused(bad, "--port", str(free_port())) == []


def test_a_kv_cache_without_room_is_rejected_and_no_process_remains() -> None:
    """Only the stages know how much memory is free, so Ray and the stages have started by then."""
    with started_demo(TDPIPE_CACHE__MEMORY="1e-7") as server:
        assert server.await_end() == 2
        text = server.stderr()
        assert "stage 1: " in text
        assert "Traceback" not in text
        line = text.splitlines()[-1]
        assert line.startswith("error: cache.memory: no room for the KV cache of any sequence")
        assert "raise it" in line
        assert server.left_behind() == set()
