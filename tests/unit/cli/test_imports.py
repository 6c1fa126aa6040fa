"""A server must not load modules that it does not need, because each second of imports delays its start."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

UNWANTED = re.compile(r"(tdpipe\.simulation|tdpipe\.measurement|matplotlib)(\.|$)")
MODELS = re.compile(r"(transformers\.modeling_utils|torch\._dynamo)(\.|$)")
"""Modules that take seconds to import, and that only the stages need."""
SCRIPT = "import sys, importlib; importlib.import_module(sys.argv[1]); print(*sys.modules)"


def loaded_by(module: str) -> list[str]:
    """Return the modules that a new process has after an import."""
    names = subprocess.run(
        [sys.executable, "-c", SCRIPT, module],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()
    assert module in names
    return names


@pytest.mark.parametrize("module", ["tdpipe.cli.serve", "tdpipe.controller.start"])
def test_serving_loads_no_simulation_and_no_measurement(module: str) -> None:
    assert [name for name in loaded_by(module) if UNWANTED.match(name)] == []


def test_the_controller_does_not_load_the_code_of_models() -> None:
    assert [name for name in loaded_by("tdpipe.controller.start") if MODELS.match(name)] == []
