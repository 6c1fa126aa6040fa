"""Each exit code, provoked in real processes, with the reason that a supervisor reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.endpoint import free_port
from tests.support.served_demo import COMMAND, own_environment, started_demo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.served_demo import ServedDemo

DEMO = Path(__file__).parents[2] / "examples" / "demo_model" / "checkpoint"
VARIABLE = "TDPIPE_PROCESS__TERMINATION_MESSAGE_PATH"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "termination-log"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("secret")
    return file


def reason(log: Path) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(log.read_text())
    return message


def run(command: str, log: Path, **environment: str) -> int:
    done = subprocess.run(
        [*COMMAND[:-1], command],
        env=own_environment() | {VARIABLE: str(log)} | environment,
        capture_output=True,
        timeout=120,
    )
    return done.returncode


def kill_a_stage(server: ServedDemo) -> None:
    stages = [each for each in server.descendants() if "StageActor" in each.command]
    os.kill(stages[-1].pid, signal.SIGKILL)


@pytest.fixture
def demo(log: Path) -> Iterator[ServedDemo]:
    with started_demo(**{VARIABLE: str(log)}, TDPIPE_RECOVERY__MAX_RESTARTS_PER_HOUR="1") as server:
        yield server


def test_stages_that_die_more_often_than_allowed_end_with_5(demo: ServedDemo, log: Path) -> None:
    demo.await_ready()
    kill_a_stage(demo)
    demo.await_restart()
    kill_a_stage(demo)
    assert demo.await_end() == 5
    message = reason(log)
    assert (message["cause"], message["exitCode"]) == ("RecoveryBudget", 5)
    assert message["stage"] in (0, 1)
    assert "recovery.max_restarts_per_hour" in message["message"]
    assert demo.left_behind() == set()


def test_a_signal_ends_with_0_and_no_reason(demo: ServedDemo, log: Path) -> None:
    demo.await_ready()
    assert demo.signal(signal.SIGTERM) == 0
    assert not log.exists()


def test_a_stage_that_dies_where_no_restart_is_allowed_ends_with_1(log: Path) -> None:
    environment = {VARIABLE: str(log), "TDPIPE_RECOVERY__MAX_RESTARTS": "0"}
    with started_demo(**environment) as server:
        server.await_ready()
        kill_a_stage(server)
        assert server.await_end() == 1
    message = reason(log)
    assert (message["cause"], message["exitCode"]) == ("Error", 1)
    assert message["message"] == f"the process of stage {message['stage']} died"


def test_a_checkpoint_that_a_stage_cannot_load_ends_with_2(tmp_path: Path, log: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(DEMO, broken)
    for weights in broken.glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:5000])
    environment = {VARIABLE: str(log), "TDPIPE_MODEL__PATH": str(broken)}
    with started_demo(**environment) as server:
        assert server.await_end() == 2
    message = reason(log)
    assert (message["cause"], message["exitCode"]) == ("Configuration", 2)
    assert message["stage"] in (0, 1)
    assert message["message"].startswith("model.path: ")


def test_stages_that_the_machine_has_no_memory_for_end_with_4(log: Path) -> None:
    # Ray ends processes when the machine's memory is used up to this share.
    with started_demo(**{VARIABLE: str(log)}, RAY_memory_usage_threshold="0.001") as server:
        assert server.await_end() == 4
    message = reason(log)
    assert (message["cause"], message["exitCode"]) == ("OutOfMemory", 4)
    assert message["stage"] in (0, 1)


def test_a_controller_whose_workers_do_not_come_ends_with_3(log: Path, token_file: Path) -> None:
    status = run(
        "controller",
        log,
        TDPIPE_MODEL__DEVICE="cpu",
        TDPIPE_SERVER__PORT=str(free_port()),
        TDPIPE_PIPELINE__START_TIMEOUT="3",
        TDPIPE_CLUSTER__TOKEN_FILE=str(token_file),
        TDPIPE_CLUSTER__RAY_PORT=str(free_port()),
        TDPIPE_CLUSTER__FIRST_PORT="17600",
    )
    assert status == 3
    message = reason(log)
    assert (message["cause"], message["exitCode"]) == ("WorkersMissing", 3)
    assert message["message"].startswith("0 of 2 workers of epoch 1 are here")


def test_a_worker_whose_controller_does_not_come_ends_with_3(log: Path, token_file: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    status = run(
        "worker",
        log,
        TDPIPE_PIPELINE__START_TIMEOUT="2",
        TDPIPE_CLUSTER__TOKEN_FILE=str(token_file),
        TDPIPE_CLUSTER__ADDRESS=address,
        TDPIPE_CLUSTER__PLACE="0",
        TDPIPE_CLUSTER__PROBE_PORT=str(free_port()),
    )
    assert status == 3
    assert f"the controller at {address} could not be joined" in reason(log)["message"]
