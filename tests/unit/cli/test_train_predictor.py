from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from tdpipe.cli.app import main
from tdpipe.prediction.model_file import read_model

if TYPE_CHECKING:
    from pathlib import Path


def write_log(file: Path, rows: int, *, informative: bool) -> Path:
    """Write a log of essays, whose prompts name their length or a random one."""
    draw = random.Random(1)
    with file.open("w") as lines:
        for _ in range(rows):
            words = draw.randint(5, 400)
            prompt = f"Write an essay of {words if informative else draw.randint(5, 400)} words."
            row = {"prompt": prompt, "output_tokens": words, "max_tokens": 500}
            lines.write(json.dumps(row) + "\n")
    return file


def test_a_log_becomes_a_predictor_that_is_compared_with_the_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, output = write_log(tmp_path / "log.jsonl", 500, informative=True), tmp_path / "lengths.npz"
    with pytest.raises(SystemExit) as caught:
        main(["train-predictor", "--data", str(log), "--output", str(output)])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "trained on 400 rows, evaluated on 100 held-out rows" in printed
    rows = {line.split(" | ")[0]: line for line in printed.splitlines() if line.startswith("| ")}
    losses = {name: float(row.split(" | ")[1]) for name, row in rows.items() if name != "|"}
    assert losses["| predictor"] < 0.5 * losses["| always the mean"]
    read_model(output, "predictor.path")


def test_a_predictor_that_is_no_better_than_the_mean_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, output = (
        write_log(tmp_path / "log.jsonl", 500, informative=False),
        tmp_path / "lengths.npz",
    )
    with pytest.raises(SystemExit) as caught:
        main(["train-predictor", "--data", str(log), "--output", str(output)])
    assert caught.value.code == 1
    assert "hardly better than always predicting the mean" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("rows", [0, 20])
def test_too_few_rows_are_refused_with_the_number_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: int
) -> None:
    log = write_log(tmp_path / "log.jsonl", rows, informative=True)
    with pytest.raises(SystemExit) as caught:
        main(["train-predictor", "--data", str(log), "--output", str(tmp_path / "lengths.npz")])
    assert caught.value.code == 2
    assert "no rows" in (error := capsys.readouterr().err) or "at least 200" in error
