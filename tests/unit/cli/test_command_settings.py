from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tdpipe
from tdpipe.cli.command_settings import load_command_settings

if TYPE_CHECKING:
    from pathlib import Path


def test_the_repository_s_demo_model_is_used_when_none_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tdpipe, "__file__", str(tmp_path / "runtime" / "tdpipe" / "__init__.py"))
    checkpoint = tmp_path / "examples" / "demo_model" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    model = load_command_settings(None, {"model": {"path": None}}).model
    assert (model.path, model.name) == (checkpoint, "demo")


@pytest.mark.parametrize(("name", "served_as"), [(None, "Qwen3-32B"), ("big", "big")])
def test_a_model_is_served_under_its_directory_s_name_or_the_given_one(
    tmp_path: Path, name: str | None, served_as: str
) -> None:
    flags = {"model": {"path": tmp_path / "Qwen3-32B", "name": name}}
    assert load_command_settings(None, flags).model.name == served_as
