"""`tdpipe serve` as a process: its output, and its end by signals and errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from tdpipe.cli import main
from tests.support.endpoint import free_port
from tests.support.serve_scripted import FAILURE, replace_engine
from tests.support.tokenizer_kinds import build_hf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    build_hf("byte_level").save_pretrained(path)
    # A checkpoint as far as a start looks at its files itself; the rest is the scripted engine's.
    config = {"model_type": "llama", "num_hidden_layers": 2}
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").touch()
    return path


@contextmanager
def serving(checkpoint: Path, port: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.serve_scripted", "serve"]
    arguments = ["--model", str(checkpoint), "--name", "tiny", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(port: int, path: str, status: int, process: subprocess.Popen[str]) -> None:
    while True:
        assert process.poll() is None, process.communicate()[1]
        try:
            if httpx.get(f"http://127.0.0.1:{port}{path}").status_code == status:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def test_a_request_that_outlasts_the_drain_fails_so_that_it_can_be_sent_again(
    checkpoint: Path,
) -> None:
    port = free_port()
    with serving(checkpoint, port, TDPIPE_SERVER__DRAIN_TIMEOUT="1") as process:
        wait_until(port, "/health/ready", 200, process)
        url = f"http://127.0.0.1:{port}/v1/completions"
        body = {"model": "tiny", "prompt": "hello", "stream": True}
        with httpx.stream("POST", url, json=body) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            rest = list(lines)
        _, text = process.communicate(timeout=20)
    assert '"code":"shutting_down"' in rest[-2] + rest[-1]
    assert process.returncode == 0
    assert "finishing 1 requests, up to 1 s" in text
    for step in ("listening on", "loading 2 stages", "warming up", "ready: "):
        assert re.search(rf"^\[ *\d+\.\d s\] {step}", text, re.MULTILINE)
    assert f"curl http://127.0.0.1:{port}/v1/chat/completions" in text
    assert "What is the capital of France?" in text
    assert "Traceback" not in text


def test_requests_in_work_finish_after_a_signal_while_new_ones_are_refused(
    checkpoint: Path,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 3, "stream": True}
    pause = {"TDPIPE_SERVER__DRAIN_PAUSE": "1.5"}
    with serving(checkpoint, port, TOKEN_SECONDS="1.5", **pause) as process:
        wait_until(port, "/health/ready", 200, process)
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            wait_until(port, "/health/ready", 503, process)
            assert httpx.get(f"{url}/health/live").status_code == 200
            short = body | {"max_tokens": 1, "stream": False}
            # Load balancers still send requests during the pause.
            assert httpx.post(f"{url}/v1/completions", json=short, timeout=60).status_code == 200
            refused = httpx.post(f"{url}/v1/completions", json=short)
            rest = list(lines)
        _, text = process.communicate(timeout=20)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    assert refused.headers["retry-after"]
    assert '"finish_reason":"length"' in rest[-3] + rest[-4]
    assert rest[-2] == "data: [DONE]"
    assert process.returncode == 0
    assert "Traceback" not in text


def test_a_second_ctrl_c_forces_the_end(checkpoint: Path) -> None:
    port = free_port()
    with serving(checkpoint, port, CLOSE_SECONDS="600") as process:
        wait_until(port, "/health/ready", 200, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "stopping" not in process.stderr.readline():
            assert process.poll() is None
        wait_until(port, "/health/ready", 503, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_a_signal_ends_a_start_in_progress(checkpoint: Path) -> None:
    port = free_port()
    with serving(checkpoint, port, START_SECONDS="600") as process:
        wait_until(port, "/health/live", 200, process)
        wait_until(port, "/health/ready", 503, process)
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in text


def test_an_engine_that_fails_ends_its_requests_and_the_process(checkpoint: Path) -> None:
    port = free_port()
    with serving(checkpoint, port, REQUEST_ERROR="1") as process:
        wait_until(port, "/health/ready", 200, process)
        url = f"http://127.0.0.1:{port}/v1/completions"
        body = {"model": "tiny", "prompt": "hello", "max_tokens": 64}
        response = httpx.post(url, json=body, timeout=60)
        _, text = process.communicate(timeout=60)
    assert response.status_code == 503
    assert "stage 1 failed: OSError: no room" in response.json()["error"]["message"]
    assert process.returncode == 1
    assert text.splitlines()[-1] == "error: stage 1 failed: OSError: no room"


def test_an_engine_that_does_not_start_ends_with_one_line_and_status_1(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("START_ERROR", "1")
    replace_engine(monkeypatch.setitem)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--model", str(checkpoint), "--port", str(free_port())])
    text = capsys.readouterr().err
    assert caught.value.code == 1
    assert text.splitlines()[-1] == "error: stage 1 failed: OSError: no room"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_traceback_of_a_stage_is_logged_when_the_engine_does_not_start(
    checkpoint: Path,
) -> None:
    with serving(checkpoint, free_port(), START_ERROR="1") as process:
        _, text = process.communicate(timeout=60)
    assert FAILURE in text
    assert text.splitlines()[-1] == "error: stage 1 failed: OSError: no room"
