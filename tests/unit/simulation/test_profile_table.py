from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.profile_table import TimeTable, read_time_table, stage_costs

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, text: str) -> Path:
    file = folder / "table.csv"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "text",
    [
        "Total Length,Execute Time\n1,35.25\n2,37.5\n",
        "Total Length, Execute Time\n1, 35.25\n2, 37.5\n\n",
        "Execute Time,Card,Total Length\r\n35.25,L20,1\r\n37.5,L20,2\r\n",
    ],
)
def test_a_table_is_read_in_seconds(tmp_path: Path, text: str) -> None:
    table = read_time_table(written(tmp_path, text), "--profile")
    assert table.tokens.tolist() == [1, 2]
    assert table.tokens.dtype == np.int32
    assert table.seconds.tolist() == pytest.approx([0.03525, 0.0375])
    assert table.seconds.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no column 'Total Length'"),
        ("Total Length,Time\n1,2\n", "no column 'Execute Time'"),
        ("Total Length,Execute Time\n", "no rows"),
        ("Total Length,Execute Time\n1,2\n2,fast\n", "line 3"),
        ("Total Length,Execute Time\n1\n", "line 2"),
        ("Total Length,Execute Time\n0,2\n", "line 2"),
        ("Total Length,Execute Time\n1,0\n", "line 2"),
        ("Total Length,Execute Time\n1,nan\n", "line 2"),
        ("Total Length,Execute Time\n2,3\n1,2\n", "line 3"),
        ("Total Length,Execute Time\n1,2\n99999999999,25\n", "line 3.*to at most"),
    ],
)
def test_a_bad_table_is_refused_with_its_problem(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refused:
        read_time_table(written(tmp_path, text), "--profile")
    assert refused.value.field == "--profile"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_time_table(tmp_path / "absent.csv", "--profile")
    with pytest.raises(SettingsError, match="directory"):
        read_time_table(tmp_path, "--profile")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_time_table(tmp_path / "binary.csv", "--profile")


def test_stages_share_time_and_kv_evenly() -> None:
    table = TimeTable(np.array([1, 128], dtype=np.int32), np.array([0.04, 0.08]))
    cost = stage_costs(table, 4, kv_bytes_per_token=819_200, kv_bandwidth=700e9)
    assert len(cost.stages) == 4
    assert cost.step_time(128, 0) == pytest.approx(0.02)
    reading = cost.step_time(128, 10_000) - cost.step_time(128, 0)
    assert reading == pytest.approx(10_000 * 819_200 / 4 / 700e9)
