"""Docstrings must stand on their own: none may begin with a preposition that depends on the name before it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("runtime", "operator", "benchmarks", "examples", "tests")
DEPENDENT_OPENING = re.compile(r'^\s*r?"""(Of|That|Whose|More|From|By)\s')


def test_docstrings_stand_on_their_own() -> None:
    places = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in FOLDERS
        for file in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if DEPENDENT_OPENING.match(line)
    ]
    assert not places, "reword:\n" + "\n".join(places)
