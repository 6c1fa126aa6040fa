"""Errors in one line, for terminals and responses: a stage's failure carries a whole traceback."""

from __future__ import annotations


def one_line(error: Exception | str) -> str:
    """The error's only line, or its first and last, which name the place and the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__ if isinstance(error, Exception) else "no reason was given"
    return lines[0] if len(lines) == 1 else f"{lines[0].rstrip(':')}: {lines[-1]}"
