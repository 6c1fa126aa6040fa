"""Compiling and caching the kernel, with a compiler that only records its calls."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.core.errors import SettingsError
from tdpipe.model import attention
from tdpipe.model.attention import make_backend
from tdpipe.model.attention.cpu.build import KernelUnavailableError, build

if TYPE_CHECKING:
    from pathlib import Path

_CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tdpipe"


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a compiler that writes empty outputs, and return the file in which it records each of them in a line."""
    record, compiler = tmp_path / "record", tmp_path / "recorder"
    record.touch()
    compiler.write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in\n'
        f'  -o*) : > "${{word#-o}}"; echo "${{word#-o}}" >> {record};;\n'
        "esac; done\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", f"{compiler} -pipe")
    return record


@pytest.fixture(autouse=True)
def not_yet_warned() -> None:
    attention._warn_once.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)


def test_a_second_build_returns_the_cached_library(recorder: Path) -> None:
    first = build()
    compiled = recorder.read_text().split()
    assert "attention.so" in compiled
    assert build() == first
    assert recorder.read_text().split() == compiled


def test_other_flags_or_another_compiler_make_another_library(
    recorder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build()
    monkeypatch.setenv("CC", os.environ["CC"] + " -g")
    assert build() != first
    assert recorder.read_text().split().count("attention.so") == 2


def test_concurrent_builds_leave_one_library_and_nothing_else(
    recorder: Path, own_cache: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        libraries = {future.result() for future in [pool.submit(build) for _ in range(4)]}
    assert [*own_cache.iterdir()] == [*libraries]
    assert "attention.so" in recorder.read_text()


def test_a_failing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(KernelUnavailableError, match=r"false failed.*set CC"):
        build()
    assert [*own_cache.iterdir()] == []


def test_a_cache_that_cannot_be_written_is_named(
    recorder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(recorder))
    with pytest.raises(KernelUnavailableError, match="set XDG_CACHE_HOME"):
        build()
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_warns_once_and_takes_sdpa(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        names = [make_backend("auto", _CPU).name for _ in range(3)]
    assert names == ["sdpa"] * 3
    (message,) = caplog.messages
    assert "apt-get install gcc" in message
    assert "\n" not in message


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_cpu_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"model\.attention: .*apt-get install gcc"):
        make_backend("cpu", _CPU)


@pytest.mark.usefixtures("recorder")
def test_a_library_that_does_not_load_makes_auto_warn_and_take_sdpa(
    caplog: pytest.LogCaptureFixture, own_cache: Path
) -> None:
    with caplog.at_level(logging.WARNING):
        assert make_backend("auto", _CPU).name == "sdpa"
    (library,) = own_cache.iterdir()
    (message,) = caplog.messages
    assert "cannot load" in message
    assert f"delete {library}" in message
    assert "XDG_CACHE_HOME" in message


@pytest.mark.usefixtures("recorder")
def test_a_library_that_does_not_load_refuses_cpu() -> None:
    with pytest.raises(SettingsError, match=r"model\.attention: .*cannot load.*use sdpa"):
        make_backend("cpu", _CPU)
