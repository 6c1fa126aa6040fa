"""`tdpipe plan`, with few requests."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tdpipe.cli.app import app, main


def plan(model: str, *arguments: str) -> str:
    command = ["plan", "--model", model, "--requests", "5", "--policy", "hybrid", *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return result.output


def failure(
    arguments: list[str], capsys: pytest.CaptureFixture[str], model: str = "llama-2-13b"
) -> tuple[str, str]:
    """What it prints, and its error."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--model", model, "--requests", "5", "--policy", "hybrid", *arguments])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_every_node_has_a_row_and_two_are_recommended() -> None:
    text = plan("llama-3.1-8b", "--hardware", "L20, h200", "--gpus", "1,2")
    nodes = [line[:18].rstrip() for line in text.splitlines() if "hybrid  " in line]
    assert nodes == ["1 x L20", "2 x L20", "1 x H200-NVL", "2 x H200-NVL"]
    assert "Most tokens per second: " in text
    assert " x H200-NVL, hybrid. Most per GPU: 1 x H200-NVL, hybrid." in text


def test_a_number_beside_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = failure(["--hardware", "L20,4xL20"], capsys)
    assert "--hardware: '4xL20' has a number of GPUs" in text
    assert "give numbers as --gpus" in text
    _, text = failure(["--hardware", "B20"], capsys)
    assert "--hardware: no GPU called 'B20'; known are L20, " in text
