"""Settings that the commands of a cluster, and those of one machine, refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tdpipe.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def refusal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str, **env: str
) -> str:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def controller(tmp_path: Path) -> list[str]:
    (tmp_path / "token").write_text("secret")
    return ["controller", "--token-file", str(tmp_path / "token")]


@pytest.mark.parametrize(
    ("device", "environment", "field"),
    [
        ("auto", {}, "model.device"),
        ("cpu", {"TDPIPE_CLUSTER__PLACE": "1"}, "cluster.place"),
        ("cpu", {"TDPIPE_CLUSTER__ADDRESS": "a:1"}, "cluster.address"),
        ("cpu", {"TDPIPE_PIPELINE__HOST": "in_process"}, "pipeline.host"),
        ("cpu", {"RAY_ADDRESS": "a:1"}, "RAY_ADDRESS"),
    ],
)
def test_a_controller_refuses_what_cannot_work_with_workers(
    controller: list[str],
    device: str,
    environment: dict[str, str],
    field: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = refusal(capsys, monkeypatch, *controller, "--device", device, **environment)
    assert line.startswith(f"error: {field}: ")


def test_a_controller_without_a_secret_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(capsys, monkeypatch, "controller", "--device", "cpu")
    assert line.startswith("error: cluster.token_file: is needed")


def test_a_worker_without_a_controller_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(capsys, monkeypatch, "worker", "--place", "0")
    assert line.startswith("error: cluster.address: ")


def test_one_machine_refuses_settings_of_a_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(capsys, monkeypatch, "serve", TDPIPE_CLUSTER__EPOCH="2")
    assert line.startswith("error: cluster.epoch: has no effect on one machine")
