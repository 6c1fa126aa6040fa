"""A server must not load modules that only simulations and measurements need."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

UNWANTED = re.compile(r"(tdpipe\.simulation|tdpipe\.measurement|matplotlib)(\.|$)")
SCRIPT = "import sys, importlib; importlib.import_module(sys.argv[1]); print(*sys.modules)"


@pytest.mark.parametrize("module", ["tdpipe.cli.serve", "tdpipe.controller.start"])
def test_serving_loads_no_simulation_and_no_measurement(module: str) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", SCRIPT, module],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()
    assert module in loaded
    assert [name for name in loaded if UNWANTED.match(name)] == []
