from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.prediction.input_vector import INPUTS
from tdpipe.prediction.row_file import read_rows
from tdpipe.prediction.training_rows import NO_BOUND

if TYPE_CHECKING:
    from pathlib import Path

ROW = {"prompt": "Spell apple.", "output_tokens": 10}


def write(file: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "x"}, "output_tokens: Field required"),
        ({"output_tokens": 5}, "prompt: Field required"),
        (ROW | {"output_tokens": 0}, "output_tokens: Input should be greater"),
        (ROW | {"output_tokens": 2.5}, "output_tokens: Input should be a valid integer"),
        (ROW | {"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
        (ROW | {"max_tokens": 9}, "output_tokens: 10 is more than max_tokens, 9"),
        (ROW | {"temprature": 1}, "temprature: no such field"),
        ("[1]", "Input should be an object"),
        ("{", "Invalid JSON"),
    ],
    ids=str,
)
def test_a_bad_line_is_named_with_its_field(
    tmp_path: Path, row: dict[str, Any] | str, says: str
) -> None:
    file = write(tmp_path / "log.jsonl", ROW, "", row)
    with pytest.raises(SettingsError) as caught:
        read_rows(file, "--data")
    message = str(caught.value)
    assert message.startswith(f"--data: {file} line 3: {says}")
    assert "fields are prompt, output_tokens" in message
    assert "\n" not in message


def test_a_file_that_is_not_there_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_rows(tmp_path / "none.jsonl", "--data")
    with pytest.raises(SettingsError, match="has no rows"):
        read_rows(write(tmp_path / "empty.jsonl", "", " "), "--data")


def test_an_output_as_long_as_its_bound_counts_as_cut_off(tmp_path: Path) -> None:
    rows = read_rows(
        write(tmp_path / "log.jsonl", ROW, ROW | {"max_tokens": 11}, ROW | {"max_tokens": 10}), ""
    )
    assert rows.lengths.tolist() == [10, 10, 10]
    assert rows.bounds.tolist() == [NO_BOUND, 11, 10]
    assert rows.complete.tolist() == [True, True, False]


def test_a_row_knows_of_its_tenant_only_what_came_before(tmp_path: Path) -> None:
    asked = [ROW | {"tenant": name} for name in ("ada", "ada", "bob", "ada")]
    rows = read_rows(write(tmp_path / "log.jsonl", *asked, ROW), "--data")
    outputs = rows.vectors[:, INPUTS.index("tenant_outputs")]
    assert outputs[:4].tolist() == [0, 1, 0, 2]
    assert np.isnan(outputs[4])
