"""The file that tells a supervisor why the process has ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tdpipe.cli import main
from tdpipe.cli.termination_message import termination_message, termination_message_on_error
from tdpipe.core.errors import (
    ModelError,
    PipelineError,
    RecoveryBudgetError,
    SettingsError,
    StageMemoryError,
    TDPipeError,
    WorkersMissingError,
)

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "TDPIPE_PROCESS__TERMINATION_MESSAGE_PATH"


@pytest.mark.parametrize(
    ("error", "cause", "code"),
    [
        (PipelineError("x"), "Error", 1),
        (RuntimeError("x"), "Error", 1),
        (SettingsError("a.b", "x", "y"), "Configuration", 2),
        (ModelError("x"), "Configuration", 2),
        (WorkersMissingError("x"), "WorkersMissing", 3),
        (StageMemoryError("x"), "OutOfMemory", 4),
        (RecoveryBudgetError("x"), "RecoveryBudget", 5),
    ],
)
def test_the_message_names_the_cause_and_the_exit_code(
    error: Exception, cause: str, code: int
) -> None:
    message = json.loads(termination_message(error))
    assert message == {"cause": cause, "stage": None, "exitCode": code, "message": str(error)}


def test_the_message_names_the_stage() -> None:
    assert json.loads(termination_message(PipelineError("x").in_stage(3)))["stage"] == 3


@pytest.mark.parametrize("text", ["x" * 5000, "€" * 5000, "😀" * 5000, '"' * 5000, "\n" * 5000])
def test_a_long_message_is_cut_to_what_kubernetes_reads(text: str) -> None:
    data = termination_message(TDPipeError(text))
    assert 3000 < len(data) <= 4096
    cut = json.loads(data)["message"]
    assert cut.endswith("…")
    assert text.startswith(cut.rstrip("…"))


def test_a_command_with_wrong_settings_writes_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "log"))
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--policy", "none"])
    assert caught.value.code == 2
    message: dict[str, Any] = json.loads((tmp_path / "log").read_text())
    assert (message["cause"], message["exitCode"]) == ("Configuration", 2)
    assert "scheduler.policy" in message["message"]


def end(error: BaseException, path: Path) -> None:
    with termination_message_on_error() as message:
        message.path = path
        raise error


def test_a_clean_end_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        end(KeyboardInterrupt(), tmp_path / "log")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError):
        end(PipelineError("x"), tmp_path / "missing" / "log")
