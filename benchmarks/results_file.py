"""The file that `--json` names, with a benchmark's results, the machine and the command.

A run takes minutes, so a path that cannot be written is rejected before it starts. The machine is described at the
start as well, because its load would later include the benchmark itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.command_line import shown_command
from benchmarks.machine import describe_machine
from tdpipe.cli.output_file import check_output
from tdpipe.core.errors import TDPipeError

if TYPE_CHECKING:
    import argparse

_OPTION = "--json"


@dataclass(frozen=True, slots=True)
class ResultsFile:
    """Destination of the results, and a description of how they were obtained."""

    path: Path | None
    """Path of the file; None writes no file."""
    machine: str
    command: str

    @property
    def heading(self) -> str:
        """Markdown lines that begin the printed section."""
        return f"Machine: {self.machine}.\n\nCommand: `{self.command}`\n"

    def write(self, figures: object) -> None:
        """Write the results as JSON, if a path was given."""
        if self.path is None:
            return
        content = {"machine": self.machine, "command": self.command, "figures": figures}
        self.path.write_bytes(msgspec.json.format(msgspec.json.encode(content)))


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the file."""
    parser.add_argument(_OPTION, type=Path, help="also write the results to this file")


def open_results_file(path: Path | None, name: str) -> ResultsFile:
    """Return the results file of `benchmarks.NAME`; exit with an error if it cannot be written."""
    try:
        check_output(path, _OPTION)
    except TDPipeError as error:
        sys.exit(str(error))
    return ResultsFile(path, describe_machine(), shown_command(name))
