"""Failures and time limits of the parts of the GPU check, and models that are too large."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from benchmarks.gpu_check.llama_checkpoint import write_llama
from benchmarks.gpu_check.part import Finding, Part, PartSkippedError, Status, run_part
from benchmarks.gpu_check.scale import DRY

from tdpipe.model.description import describe_model

if TYPE_CHECKING:
    from pathlib import Path

LATER = time.monotonic() + 1e6
CPU = torch.device("cpu")


def test_a_finding_is_kept() -> None:
    outcome = run_part(Part("copy", 5, lambda _: Finding("fast", {"seconds": 1.0})), LATER)
    assert (outcome.status, outcome.text, outcome.figures) == (Status.OK, "fast", {"seconds": 1.0})


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RuntimeError("no kernel\nfor this card"), Status.FAILED, "no kernel"),
        (AssertionError(), Status.FAILED, "AssertionError"),
        (SystemExit("ended"), Status.FAILED, "ended"),
        (PartSkippedError("no model"), Status.SKIPPED, "no model"),
    ],
)
def test_a_part_that_raises_ends_alone(error: BaseException, status: Status, text: str) -> None:
    def run(_: float) -> Finding:
        raise error

    outcome = run_part(Part("copy", 5, run), LATER)
    assert (outcome.status, outcome.text) == (status, text)
    assert ("Traceback" in outcome.traceback) == (status is Status.FAILED)


def test_a_part_that_exceeds_its_time_limit_fails() -> None:
    release = threading.Event()

    def run(_: float) -> Finding:
        release.wait(10)
        return Finding("late")

    outcome = run_part(Part("copy", 0.1, run), LATER)
    release.set()
    assert outcome.status is Status.FAILED
    assert "took longer" in outcome.text


def test_a_part_that_would_begin_too_late_is_skipped() -> None:
    outcome = run_part(Part("copy", 5, lambda _: Finding("fast")), time.monotonic())
    assert outcome.status is Status.SKIPPED


@pytest.mark.parametrize("layers", [4, 6])
def test_a_written_model_has_the_layers_that_there_is_room_for(tmp_path: Path, layers: int) -> None:
    written = write_llama(tmp_path, DRY, layers, CPU, LATER)
    sizes = describe_model(tmp_path).sizes
    assert sizes.layers == written.layers == layers
    assert sizes.same_sizes(replace(DRY.model, layers=layers))
    assert written.size == 2 * sizes.parameters


def test_a_model_that_takes_too_long_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="only 0 layers"):
        write_llama(tmp_path, DRY, DRY.model.layers, CPU, time.monotonic())
