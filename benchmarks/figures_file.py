"""The file that `--json` names: a benchmark's figures, the machine they were taken on, and the command.

A run takes minutes, so a file that could not be written ends it before the start. The machine is described then, too:
afterwards its load would be the benchmark's own.
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
class FiguresFile:
    """Where figures go, and what they say of themselves."""

    path: Path | None
    """None writes none."""
    machine: str
    command: str

    @property
    def heading(self) -> str:
        """What the printed section begins with."""
        return f"Machine: {self.machine}.\n\nCommand: `{self.command}`\n"

    def write(self, figures: object) -> None:
        """Write them, if a file is wanted."""
        if self.path is None:
            return
        content = {"machine": self.machine, "command": self.command, "figures": figures}
        self.path.write_bytes(msgspec.json.format(msgspec.json.encode(content)))


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Let the command line name the file."""
    parser.add_argument(_OPTION, type=Path, help="write all figures to this file, too")


def open_figures(path: Path | None, name: str) -> FiguresFile:
    """The file of `benchmarks.NAME`, before the benchmark starts; ends the program if it could not be written."""
    try:
        check_output(path, _OPTION)
    except TDPipeError as error:
        sys.exit(str(error))
    return FiguresFile(path, describe_machine(), shown_command(name))
