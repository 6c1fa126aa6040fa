"""Every part of the GPU check runs on a CPU, so that no mistake in it wastes time on a GPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.gpu_check.__main__ import main
from benchmarks.gpu_check.equality import FAMILIES
from benchmarks.gpu_check.serving import POLICIES

from tdpipe.core.profile import read_profile_file

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PARTS = [
    "memory bandwidth",
    "bf16 rate",
    *(f"{family} {dtype}" for family in FAMILIES for dtype in ("float32", "bfloat16")),
    "write checkpoint",
    "load weights",
    "prefill of 64 tokens",
    *(f"decode at batch {rows}" for rows in (1, 4, 8)),
    *(f"serving, {policy}" for policy in POLICIES),
    "profile",
    "serving, generate_batch",
]


def test_a_dry_run_runs_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results"
    status = main(["--dry", "--output", str(output)])
    parts = json.loads((output / "gpu_check.json").read_text())["parts"]
    assert [(part["name"], part["status"], part["traceback"]) for part in parts] == [
        (name, "ok", "") for name in PARTS
    ]
    assert status == 0

    table = (output / "gpu_check.md").read_text()
    assert capsys.readouterr().out.endswith(f"\n{table}\n")
    for name in PARTS:
        assert f"| {name} | ok |" in table

    profile = read_profile_file(output / "profile.yaml", "--profile")
    assert profile.provenance.model.name == "tiny-llama"
    figures = {part["name"]: part["figures"] for part in parts}
    assert figures["decode at batch 8"]["share_of_bandwidth"] > 0
    assert figures["prefill of 64 tokens"]["share_of_rate"] > 0
    served = [figures[name]["output_tokens"] for name in PARTS if name.startswith("serving")]
    assert len(set(served)) == 1
    assert served[0] > 0


def test_named_parts_run_with_the_parts_they_depend_on(tmp_path: Path) -> None:
    assert main(["--dry", "--only", "batch 4", "--stages", "2", "--output", str(tmp_path)]) == 0
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert [part["name"] for part in parts] == [
        "memory bandwidth",
        "bf16 rate",
        "write checkpoint",
        "load weights",
        "decode at batch 4",
    ]
    assert len(parts[3]["figures"]["stages"]) == 2


def test_a_run_without_time_skips_its_parts(tmp_path: Path) -> None:
    assert main(["--dry", "--seconds", "0", "--output", str(tmp_path)]) == 0
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert {part["status"] for part in parts} == {"skipped"}
    assert "the time for all parts was used up" in parts[0]["text"]
