from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import tdpipe
from tdpipe.cli.app import app, main

if TYPE_CHECKING:
    from pathlib import Path


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"tdpipe {tdpipe.__version__}\n"


def test_help_shows_every_option_with_default_and_variable() -> None:
    text = CliRunner().invoke(app, ["serve", "--help"]).output
    for option in (
        "--model",
        "--name",
        "--stages",
        "--policy",
        "--device",
        "--host",
        "--port",
        "--config",
    ):
        assert option in text
    words = " ".join(text.split())
    assert "default 2, env TDPIPE_PIPELINE__STAGES" in words
    assert "default 8000, env TDPIPE_SERVER__PORT" in words
    assert "Examples:" in text


def test_help_cuts_no_description_of_a_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    _, _, commands = text.partition("Commands:\n")
    assert "serve" in commands
    assert "..." not in commands


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tdpipe.cli import main\n"
        "try:\n    main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'fastapi', 'numpy'}\n"
        "print(heavy & sys.modules.keys(), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == "set()\n"


def test_a_server_imports_neither_simulation_nor_measurement() -> None:
    code = (
        "import sys, tdpipe.cli.serve, tdpipe.cli.server_run, tdpipe.controller.start\n"
        "unused = ('tdpipe.simulation', 'tdpipe.measurement', 'matplotlib')\n"
        "print([name for name in sys.modules if name.startswith(unused)])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stages", "0"], "pipeline.stages"),
        (["--policy", "fifo"], "'adaptive', 'temporal'"),
        (["--device", "tpu"], "model.device"),
        (["--port", "70000"], "server.port"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--host", "no.such.host.invalid"], "server.host"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_line_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = failure(["serve", *arguments], capsys)
    assert status == 2
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert says in text


def test_a_flag_overrides_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TDPIPE_SERVER__HOST", "from.environment.invalid")
    assert "from.environment.invalid" in failure(["serve"], capsys)[1]
    assert "from.flag.invalid" in failure(["serve", "--host", "from.flag.invalid"], capsys)[1]


def test_a_taken_port_is_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, text = failure(["serve", "--port", port], capsys)
    assert status == 2
    assert f"127.0.0.1:{port}" in text
    assert "in use" in text


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = failure(["serve", "--stagez", "2"], capsys)
    assert status == 2
    assert "--stagez" in text


@pytest.mark.parametrize(
    "command",
    [
        ["simulate"],
        ["plan", "--model", "llama-2-13b"],
        ["bench"],
        ["train-predictor", "--data", "log.jsonl", "--output", "lengths.npz"],
    ],
    ids=str,
)
def test_a_seed_below_0_is_refused_by_name(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = failure([*command, "--seed", "-1"], capsys)
    assert status == 2
    assert "--seed" in text
    assert "Traceback" not in text


def test_without_a_model_and_a_demo_model_the_error_has_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tdpipe, "__file__", str(tmp_path / "runtime" / "tdpipe" / "__init__.py"))
    status, text = failure(["serve"], capsys)
    assert status == 2
    assert "pass --model DIR" in text
