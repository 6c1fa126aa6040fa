from __future__ import annotations

import subprocess
import sys

import pytest
from benchmarks.__main__ import NAMES, main
from benchmarks.command_line import shown_command


class Runs:
    """Replaces `subprocess.run`: records the module and returns `status`."""

    def __init__(self) -> None:
        self.modules: list[str] = []
        self.status = 0

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        self.modules.append(command[-1])
        return subprocess.CompletedProcess(command, self.status)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(subprocess, "run", runs)
    return runs


@pytest.mark.parametrize(
    ("arguments", "names"), [([], ()), (["real_work"], ("real_work",)), (["all"], NAMES)]
)
def test_the_named_benchmarks_run(runs: Runs, arguments: list[str], names: tuple[str, ...]) -> None:
    main(arguments)
    assert runs.modules == [f"benchmarks.{name}" for name in names]


def test_a_failing_benchmark_ends_the_run_with_its_status(runs: Runs) -> None:
    runs.status = 3
    with pytest.raises(SystemExit) as caught:
        main(["all"])
    assert caught.value.code == 3
    assert runs.modules == [f"benchmarks.{NAMES[0]}"]


def test_an_unknown_benchmark_is_rejected_with_the_known_names(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "choose from " + ", ".join(NAMES) in capsys.readouterr().err
    assert not runs.modules


def test_the_command_is_shown_without_the_folders_of_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["real_work.py", "--trace", "/home/ada/my lengths.csv"])
    assert shown_command("real_work") == "python -m benchmarks.real_work --trace 'my lengths.csv'"
