"""Published traces, and samples of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.trace import read_trace, sample, synthetic_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LENGTHS = "num_prefill_tokens,num_decode_tokens,pd_ratio\n74,918,0.1\n2000,5,4\n3,0,1\n10,20,1\n"
ARRIVALS = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9306,396,109\n"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_empty_and_too_long_requests_are_left_out(tmp_path: Path) -> None:
    rows = read_trace(write(tmp_path, LENGTHS), 1_024)
    assert [(row.prompt_tokens, row.output_tokens) for row in rows] == [(74, 918), (10, 20)]


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    assert len(read_trace(write(tmp_path, "\ufeff" + LENGTHS))) == 3


def test_arrivals_count_from_the_first(tmp_path: Path) -> None:
    rows = read_trace(write(tmp_path, ARRIVALS))
    assert [row.arrival for row in rows] == pytest.approx([0.0, 4.25001], abs=1e-4)


@pytest.fixture
def new_york() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_times_of_any_zone_and_resolution_are_comparable(tmp_path: Path) -> None:
    stamps = ("00:00:00.0000000", "00:00:01+00:00", "02:00:02.5000000+02:00", "00:00:03.1Z")
    lines = "".join(f"2023-11-05 {stamp},1,1\n" for stamp in stamps)
    rows = read_trace(write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n" + lines))
    assert [row.arrival for row in rows] == pytest.approx([0.0, 1.0, 2.5, 3.1])


@pytest.mark.parametrize("given", [True, False])
def test_a_bound_that_leaves_no_prompt_is_refused(tmp_path: Path, given: bool) -> None:
    path = write(tmp_path, LENGTHS.replace("10,20", "90,20")) if given else None
    assert all(row.prompt_tokens <= 80 for row in read_trace(path, 80))
    with pytest.raises(SettingsError, match=r"--longest-prompt.*raise it"):
        read_trace(path, 0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1,2\n", "other columns"),
        ("num_prefill_tokens,num_decode_tokens\n1,x\n", "line 2"),
        (
            "num_prefill_tokens,num_decode_tokens\n1,1\n-3,1\n",
            "line 3: '-3' is not a number of tokens",
        ),
        ("num_prefill_tokens,num_decode_tokens\n", "no request"),
        ("num_prefill_tokens,num_decode_tokens\n7\n", "line 2: 'nothing' is not a number"),
        ("num_prefill_tokens,num_decode_tokens\n7,10.5\n", "line 2: '10.5' is not a number"),
        ("", "is empty"),
        (ARRIVALS.replace("2023-11-16 18:15:50.9306", "yesterday"), "line 3"),
        (f"num_prefill_tokens,num_decode_tokens\n{'1' * 200_000},1\n", "field limit"),
    ],
)
def test_another_file_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_trace(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--trace"):
        read_trace(tmp_path / "none.csv")


def test_offline_samples_are_distinct_rows_that_come_at_once() -> None:
    rows = synthetic_trace()
    drawn = sample(rows, 100, 1, arrivals=False)
    assert {row.arrival for row in drawn} == {0.0}
    assert drawn == sample(rows, 100, 1, arrivals=False)
    assert drawn != sample(rows, 100, 2, arrivals=False)


def test_more_requests_than_the_trace_has_cannot_be_drawn() -> None:
    with pytest.raises(SettingsError, match="--requests"):
        sample(synthetic_trace(), 10**6, 0, arrivals=False)
