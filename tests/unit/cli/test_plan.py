"""`tdpipe plan`, with few requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tdpipe.cli.app import app, main

if TYPE_CHECKING:
    from pathlib import Path


def plan(model: str, *arguments: str) -> str:
    command = ["plan", "--model", model, "--requests", "5", "--policy", "hybrid", *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return result.output


def failure(
    arguments: list[str], capsys: pytest.CaptureFixture[str], model: str = "llama-2-13b"
) -> tuple[str, str]:
    """What the command prints to stdout and stderr when it fails."""
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


def test_nodes_that_the_requests_do_not_fill_are_marked(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("num_prefill_tokens,num_decode_tokens\n" + "1000,200\n" * 25)
    few = ("--hardware", "L20", "--gpus", "1,2", "--trace", str(trace), "--requests", "25")
    one, two = (line for line in plan("llama-2-13b", *few).splitlines() if " x L20  " in line)
    assert not one.endswith("*")
    assert two.endswith("% *")
    note = "* the requests never filled the KV cache"
    assert note in plan("llama-2-13b", *few)
    assert note not in plan("llama-2-13b", *few, "--gpus", "1")


def test_a_node_that_cannot_run_has_a_row_that_says_why() -> None:
    text = plan("llama-3.1-8b", "--hardware", "L20", "--gpus", "1,33")
    (row,) = (line for line in text.splitlines() if line.startswith("33 x L20"))
    assert row.endswith("--gpus: 33 GPUs cannot share the 32 layers of llama-3.1-8b; use 1 to 32")
    assert "Most tokens per second: 1 x L20, hybrid." in text


@pytest.mark.parametrize(
    ("model", "gpus", "says"),
    [
        ("llama-2-70b", "1", "GiB of llama-2-70b's weights are on one L20, which has"),
        ("llama-2-13b", "41", "--gpus: 41 GPUs cannot share the 40 layers of llama-2-13b"),
    ],
)
def test_no_node_that_can_run_is_an_error_for_which_the_rows_have_the_reasons(
    model: str, gpus: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, text = failure(["--hardware", "L20", "--gpus", gpus], capsys, model)
    assert says in rows
    assert text.startswith(
        f"error: --gpus: none of these nodes can serve the requests with {model};"
    )


def test_requests_that_no_kv_cache_holds_are_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "long.csv"
    trace.write_text("num_prefill_tokens,num_decode_tokens\n" + "900000,9\n" * 5)
    rows, _ = failure(["--hardware", "L20", "--gpus", "2", "--trace", str(trace)], capsys)
    assert "--gpus: a request needs up to 900009 tokens of KV cache, which holds" in rows
    assert "give more, lower --longest-prompt, or leave so long outputs out" in rows


def test_a_number_of_gpus_in_a_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = failure(["--hardware", "L20,4xL20"], capsys)
    assert "--hardware: '4xL20' has a number of GPUs" in text
    assert "give numbers as --gpus" in text
    _, text = failure(["--hardware", "B20"], capsys)
    assert "--hardware: no GPU called 'B20'; known are L20, " in text


def test_a_policy_that_a_node_cannot_run_leaves_the_others() -> None:
    node = ("--hardware", "L20", "--gpus", "3", "--policy", "tp-hybrid,hybrid")
    refused, ran = (line for line in plan("llama-2-13b", *node).splitlines() if "3 x L20  " in line)
    assert "tp-hybrid: 3 GPUs do not share 40 heads" in refused
    assert ran.split()[3] == "hybrid"


def test_a_kind_or_number_given_twice_is_compared_once() -> None:
    text = plan("llama-3.1-8b", "--hardware", "L20,l20", "--gpus", "2,2")
    assert text.count("2 x L20            hybrid") == 1


def test_no_gpu_is_no_number_of_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    printed, text = failure(["--gpus", "3,0"], capsys)
    assert printed == ""
    assert "--gpus: '3,0' is not a list of positive numbers; give numbers such as 2,4,8" in text
