from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.prediction.features import FEATURE_NAMES
from tdpipe.prediction.request_log import read_request_log
from tdpipe.prediction.training_rows import NO_MAX_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

ROW = {"prompt": "Spell apple.", "output_tokens": 10}


def write(file: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize(
    ("row", "problem"),
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
def test_an_invalid_line_is_reported_with_its_field(
    tmp_path: Path, row: dict[str, Any] | str, problem: str
) -> None:
    file = write(tmp_path / "log.jsonl", ROW, "", row)
    with pytest.raises(SettingsError) as caught:
        read_request_log(file, "--data")
    message = str(caught.value)
    assert message.startswith(f"--data: {file} line 3: {problem}")
    assert "fields are prompt, output_tokens" in message
    assert "\n" not in message


def test_a_missing_or_empty_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_request_log(tmp_path / "none.jsonl", "--data")
    with pytest.raises(SettingsError, match="has no rows"):
        read_request_log(write(tmp_path / "empty.jsonl", "", " "), "--data")


def test_an_output_of_max_tokens_counts_as_cut_off(tmp_path: Path) -> None:
    rows = read_request_log(
        write(tmp_path / "log.jsonl", ROW, ROW | {"max_tokens": 11}, ROW | {"max_tokens": 10}), ""
    )
    assert rows.lengths.tolist() == [10, 10, 10]
    assert rows.max_tokens.tolist() == [NO_MAX_TOKENS, 11, 10]
    assert rows.complete.tolist() == [True, True, False]


def test_a_row_counts_only_earlier_outputs_of_its_tenant(tmp_path: Path) -> None:
    asked = [ROW | {"tenant": name} for name in ("ada", "ada", "bob", "ada")]
    rows = read_request_log(write(tmp_path / "log.jsonl", *asked, ROW), "--data")
    outputs = rows.vectors[:, FEATURE_NAMES.index("tenant_outputs")]
    assert outputs[:4].tolist() == [0, 1, 0, 2]
    assert np.isnan(outputs[4])
