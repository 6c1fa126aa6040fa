"""The results file is rejected before the run if it cannot be written, and describes how results were obtained."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from benchmarks.__main__ import NAMES
from benchmarks.results_file import open_results_file

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    rate: float


def test_results_contain_the_machine_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["paper_work.py", "--json", str(path)])
    file = open_results_file(path, "paper_work")
    file.write({"13B": [Result(2.5)]})
    assert json.loads(path.read_text()) == {
        "machine": file.machine,
        "command": "python -m benchmarks.paper_work --json result.json",
        "figures": {"13B": [{"rate": 2.5}]},
    }
    assert file.heading == f"Machine: {file.machine}.\n\nCommand: `{file.command}`\n"


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_results_file(None, "paper_work").write([1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_rejects_an_unwritable_file_before_it_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setattr(sys, "argv", [name, "--json", str(missing / "result.json")])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"benchmarks.{name}").main()
    # Python prints a status that is a string to stderr and exits with 1.
    assert caught.value.code == f"--json: no such directory: {missing}; create it first"
    assert not capsys.readouterr().out
