from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchmarks.systems.catalogue import SYSTEMS
from benchmarks.systems.external_engines import (
    EXTERNAL_ENGINES,
    engine_environment,
    interpreter_for,
)
from benchmarks.systems.run import RunConfig

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from benchmarks.systems.run import EngineName

OWN = Path("/own/bin/python")
OTHER = Path("/other/bin/python")
CONFIG = RunConfig(SYSTEMS["vllm-1"], "checkpoint", (), 64, 512, 2, "float32")


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7, 3, 5})


def test_an_installed_engine_runs_in_this_interpreter() -> None:
    assert interpreter_for("generate_batch", {}, OWN) == OWN


def test_an_external_engine_runs_in_the_given_interpreter(tmp_path: Path) -> None:
    given = tmp_path / "python"
    given.touch()
    assert interpreter_for("vllm", {"vllm": given}, OWN) == given


@pytest.mark.parametrize("engine", EXTERNAL_ENGINES)
def test_a_missing_interpreter_is_rejected_with_the_install_command(engine: EngineName) -> None:
    with pytest.raises(SettingsError, match=r"--\S+-python: not given; install with: .*venv"):
        interpreter_for(engine, {}, OWN)


def test_an_interpreter_that_does_not_exist_is_rejected() -> None:
    with pytest.raises(SettingsError, match="no file /other/bin/python"):
        interpreter_for("vllm", {"vllm": OTHER}, OWN)


@pytest.mark.parametrize(("system", "bind"), [("vllm-1", "3,5"), ("vllm-2", "3|5")])
def test_vllm_binds_each_stage_to_its_own_cores(system: str, bind: str) -> None:
    environment = engine_environment(replace(CONFIG, system=SYSTEMS[system]), OTHER)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == bind
    assert environment["LD_PRELOAD"] == "/other/lib/libiomp5.so"


def test_vllm_with_more_stages_than_threads_is_rejected() -> None:
    with pytest.raises(SettingsError, match="give at least 2"):
        engine_environment(replace(CONFIG, system=SYSTEMS["vllm-2"], threads=1), OTHER)


def test_other_engines_need_no_environment_variables() -> None:
    assert engine_environment(replace(CONFIG, system=SYSTEMS["temporal-1"]), OWN) == {}
