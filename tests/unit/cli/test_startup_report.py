"""The address that the report prints."""

from __future__ import annotations

import pytest

from tdpipe.cli.startup_report import StartupReport
from tdpipe.core.settings import ServerSettings


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")],
)
def test_the_url_can_be_connected_to(
    host: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    StartupReport().ready(ServerSettings(host=host, port=8123), "demo", chat=True, demo=True)
    text = capsys.readouterr().err
    assert f"curl http://{shown}:8123/v1/chat/completions" in text


@pytest.mark.parametrize(("demo", "asked"), [(True, "Count from 4"), (False, "capital of France")])
def test_the_example_asks_what_the_model_can_answer(
    capsys: pytest.CaptureFixture[str], demo: bool, asked: str
) -> None:
    StartupReport().ready(ServerSettings(), "m", chat=True, demo=demo)
    assert asked in capsys.readouterr().err
