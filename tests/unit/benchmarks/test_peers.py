from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.systems.catalogue import SYSTEMS
from benchmarks.systems.job import Job
from benchmarks.systems.peers import PEERS, interpreter_of, peer_environment

from tdpipe.core.errors import SettingsError

OWN = Path("/own/bin/python")
OTHER = Path("/other/bin/python")
JOB = Job(SYSTEMS["vllm-1"], "checkpoint", (), 64, 512, 2, "float32")


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7, 3, 5})


def test_what_is_installed_here_runs_in_the_own_interpreter() -> None:
    assert interpreter_of("generate_batch", {}, OWN) == OWN


def test_a_peer_runs_in_the_interpreter_given(tmp_path: Path) -> None:
    given = tmp_path / "python"
    given.touch()
    assert interpreter_of("vllm", {"vllm": given}, OWN) == given


@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_without_interpreter_is_refused_with_how_to_install_it(engine: str) -> None:
    with pytest.raises(SettingsError, match=r"--\S+-python: not given; install with: .*venv"):
        interpreter_of(engine, {}, OWN)  # type: ignore[arg-type]


def test_an_interpreter_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="no file /other/bin/python"):
        interpreter_of("vllm", {"vllm": OTHER}, OWN)


@pytest.mark.parametrize(("system", "bind"), [("vllm-1", "3,5"), ("vllm-2", "3|5")])
def test_vllm_binds_its_stages_to_cores_of_their_own(system: str, bind: str) -> None:
    environment = peer_environment(replace(JOB, system=SYSTEMS[system]), OTHER)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == bind
    assert environment["LD_PRELOAD"] == "/other/lib/libiomp5.so"


def test_vllm_with_more_stages_than_threads_is_refused() -> None:
    with pytest.raises(SettingsError, match="give at least 2"):
        peer_environment(replace(JOB, system=SYSTEMS["vllm-2"], threads=1), OTHER)


def test_others_need_no_environment_of_their_own() -> None:
    assert peer_environment(replace(JOB, system=SYSTEMS["temporal-1"]), OWN) == {}
