"""`tdpipe simulate`, with few requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tdpipe.cli.app import app, main

if TYPE_CHECKING:
    from pathlib import Path

NODE = ("--hardware", "4xL20", "--model", "llama-2-13b")
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2024-05-10 00:0{minute}:00,{900 + minute},{20 + minute}\n" for minute in range(5)
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    return file


def simulate(trace: Path, *arguments: str) -> str:
    """Output of the command for all 5 requests of the trace."""
    command = ["simulate", *NODE, "--trace", str(trace), "--requests", "5", *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return result.output


def rows(trace: Path, *arguments: str) -> list[dict[str, object]]:
    file = trace.with_name("rows.json")
    simulate(trace, "--json", str(file), *arguments)
    content: list[dict[str, object]] = json.loads(file.read_text())
    return content


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *NODE, "--requests", "5", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_json_has_a_row_for_each_policy_as_the_table(trace: Path) -> None:
    found = rows(trace, "--policy", "adaptive,hybrid")
    assert [row["policy"] for row in found] == ["adaptive", "hybrid"]
    table = simulate(trace, "--policy", "adaptive,hybrid").splitlines()
    for row in found:
        assert any(
            line.split()[:2] == [row["policy"], f"{row['output_tokens_per_second']:.0f}"]
            for line in table
        )


def test_a_budget_is_every_policy_s_but_reference_s(trace: Path) -> None:
    policies = ("--policy", "hybrid,reference")
    free = rows(trace, *policies)
    tight = rows(trace, *policies, "--budget", "64")
    assert [row["policy"] for row in tight] == ["hybrid", "reference"]
    assert tight[0] != free[0]
    assert tight[1] == free[1]


def test_arrivals_keep_the_trace_s_times(trace: Path) -> None:
    (at_once,) = rows(trace, "--policy", "hybrid")
    (spread,) = rows(trace, "--policy", "hybrid", "--arrivals")
    assert isinstance(at_once["seconds"], float)
    assert at_once["seconds"] < 60
    assert isinstance(spread["seconds"], float)
    assert spread["seconds"] > 4 * 60


def test_a_request_must_fit_the_kv_cache_up_to_its_bound(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--policy", "hybrid", "--kv-capacity", "1000")
    simulate(trace, *small)
    simulate(trace, *small, "--max-tokens", "24")
    text = failure(["--trace", str(trace), *small, "--max-tokens", "100"], capsys)
    assert "--kv-capacity: a request needs up to 1004 tokens of KV cache, which holds 992;" in text
    assert "--max-tokens" in text
    text = failure(["--trace", str(trace), *small, "--max-tokens", "23"], capsys)
    assert "--max-tokens: the trace has outputs of 24 tokens; raise it" in text


def test_a_picture_is_drawn_for_each_policy(trace: Path) -> None:
    simulate(trace, "--policy", "adaptive,hybrid", "--picture", str(trace.with_name("run.png")))
    for policy in ("adaptive", "hybrid"):
        assert trace.with_name(f"run-{policy}.png").stat().st_size > 0


def test_a_budget_for_reference_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(["--policy", "reference", "--budget", "64"], capsys)
    assert "--budget: reference has no token budget; leave it out" in text


def test_a_policy_named_twice_runs_once_and_all_can_be_named_with_others(trace: Path) -> None:
    found = rows(trace, "--policy", "hybrid, adaptive,hybrid")
    assert [row["policy"] for row in found] == ["hybrid", "adaptive"]
    everyone = {row["policy"] for row in rows(trace, "--policy", "all")}
    found = rows(trace, "--policy", "hybrid,all")
    assert found[0]["policy"] == "hybrid"
    assert {row["policy"] for row in found} == everyone > {"adaptive", "tp-hybrid"}


def test_all_leaves_out_what_three_gpus_cannot_share(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = ("--hardware", "3xL20")
    assert not [row for row in rows(trace, *three) if str(row["policy"]).startswith("tp-")]
    text = failure(["--trace", str(trace), *three, "--policy", "adaptive,tp-hybrid"], capsys)
    assert "--policy: tp-hybrid: 3 GPUs do not share 40 heads and 40 KV heads evenly;" in text


def test_a_short_trace_is_simulated_whole(trace: Path) -> None:
    command = ["simulate", *NODE, "--trace", str(trace), "--policy", "hybrid"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "llama-2-13b on 4 x L20, 5 requests of trace.csv" in result.output


def test_outputs_of_one_token_have_no_time_per_token(tmp_path: Path) -> None:
    file = tmp_path / "single.csv"
    file.write_text("num_prefill_tokens,num_decode_tokens\n" + "100,1\n" * 5)
    (row,) = rows(file, "--policy", "hybrid")
    assert row["tpot"] == []
    assert " none\n" in simulate(file, "--policy", "hybrid")


def test_a_picture_s_own_name_is_checked_before_the_run(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.with_name("run-hybrid.png").mkdir()
    picture = ("--policy", "hybrid", "--picture", str(trace.with_name("run.png")))
    text = failure(["--trace", str(trace), *picture], capsys)
    assert "--picture: " in text
    assert "run-hybrid.png is a directory" in text


def test_runs_that_never_fill_the_kv_cache_say_so(trace: Path) -> None:
    note = "never filled the KV cache"
    assert note in simulate(trace, "--policy", "hybrid")
    assert note not in simulate(trace, "--policy", "hybrid", "--kv-capacity", "2000")


def test_requests_that_arrive_at_once_have_no_arrival_times(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_text(TRACE.replace("00:01:00", "00:00:00").split("2024-05-10 00:02")[0])
    text = failure(["--trace", str(trace), "--requests", "2", "--arrivals"], capsys)
    assert "--arrivals: all requests of the trace arrive at once, or it has no column" in text


def test_a_disk_that_is_full_is_an_error_of_its_option(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = ("--policy", "hybrid", "--json", "/dev/full")
    text = failure(["--trace", str(trace), *full], capsys)
    assert "--json: /dev/full: No space left on device; name another file" in text
