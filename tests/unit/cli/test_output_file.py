from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tdpipe.cli.app import main
from tdpipe.cli.output_file import check_output
from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    check_output(None, "--json")
    check_output(tmp_path / "new.json", "--json")
    old = tmp_path / "old.json"
    old.write_text("{}")
    check_output(old, "--json")
    assert [each.name for each in tmp_path.iterdir()] == ["old.json"]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--json: .* is a directory; name a file in it"):
        check_output(tmp_path, "--json")


def test_a_picture_of_no_known_format_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--picture", str(tmp_path / "run.txt")])
    assert ended.value.code == 2
    assert "--picture: run.txt is not the name of a picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["simulate"], "--json"),
        (["simulate"], "--picture"),
        (["bench"], "--json"),
        (["profile"], "--output"),
        (["train-predictor", "--data", "log.jsonl"], "--output"),
    ],
    ids=str,
)
def test_commands_refuse_a_file_in_no_directory_before_all_else(
    command: list[str], option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, option, str(tmp_path / "absent" / "file.json")])
    assert ended.value.code == 2
    assert f"{option}: no such directory" in capsys.readouterr().err
