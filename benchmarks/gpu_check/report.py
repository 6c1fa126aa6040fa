"""The table at the end of the check, and the files in which its findings are kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.gpu_check.part import Outcome

JSON_NAME = "gpu_check.json"
TABLE_NAME = "gpu_check.md"
LEGEND = """\
*Shares* are of the bandwidth and the rate in the first rows: over the whole time of a step in a stream of steps, and
over the time alone in which the device computes. A decode step is taken to read the matrices of all layers and the head
once and its rows' KV cache once; a prefill step to multiply each token with the matrices of all layers. *Host* is the
time of a step alone in the pipeline in which no kernel runs. Stages that share a device all compute on its default
stream: their kernels never overlap, and a stage counts as busy while it waits for the kernels of another."""


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """A row per part."""
    rows = ["| part | result | seconds | finding |", "|---|---|---|---|"]
    for each in outcomes:
        text = each.text.replace("|", "\\|")
        rows.append(f"| {each.name} | {each.status} | {each.seconds:.1f} | {text} |")
    return "\n".join(rows)


def write_report(folder: Path, machine: str, command: str, outcomes: Sequence[Outcome]) -> str:
    """Write what is known so far into `folder`, and return the table with its heading.

    It is called after every part, so that a run that is cut short leaves its findings.

    Raises:
        OSError: a file cannot be written.
    """
    content = {
        "machine": machine,
        "command": command,
        "parts": [asdict(each) for each in outcomes],
    }
    (folder / JSON_NAME).write_text(json.dumps(content, indent=1) + "\n")
    text = f"Machine: {machine}.\n\n    {command}\n\n{markdown_table(outcomes)}\n\n{LEGEND}\n"
    (folder / TABLE_NAME).write_text(text)
    return text
