from __future__ import annotations

import subprocess

import pytest
from benchmarks.__main__ import NAMES, main


class Runs:
    """Stands in for `subprocess.run`: notes the module, and ends with `status`."""

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
def test_what_is_named_runs(runs: Runs, arguments: list[str], names: tuple[str, ...]) -> None:
    main(arguments)
    assert runs.modules == [f"benchmarks.{name}" for name in names]


def test_a_benchmark_that_fails_is_the_last_and_gives_its_status(runs: Runs) -> None:
    runs.status = 3
    with pytest.raises(SystemExit) as caught:
        main(["all"])
    assert caught.value.code == 3
    assert runs.modules == [f"benchmarks.{NAMES[0]}"]


def test_an_unknown_benchmark_is_told_with_those_that_there_are(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "there are " + ", ".join(NAMES) in capsys.readouterr().err
    assert not runs.modules
