from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.command_line import shown_command

if TYPE_CHECKING:
    import pytest


def test_a_command_is_shown_without_the_folders_of_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["real_work.py", "--trace", "/home/ada/my lengths.csv"])
    assert shown_command("real_work") == "python -m benchmarks.real_work --trace 'my lengths.csv'"
