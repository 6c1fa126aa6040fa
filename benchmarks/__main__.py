"""Command that lists or runs the benchmarks: `python -m benchmarks [all | NAME ...]`."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

NAMES = (
    "scheduler_cost",
    "attention_backends",
    "length_prediction",
    "real_work",
    "cluster_cost",
    "recovery",
    "paced_engine",
    "engine_and_simulator",
    "paper_work",
    "mixing_cost",
    "arrivals",
    "ablations",
    "switch_oracle",
)


def main(arguments: list[str] | None = None) -> None:
    """List the benchmarks, or run the named ones with their defaults, each in its own process.

    Args:
        arguments: Command-line arguments without the program's name; None takes them from `sys.argv`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"all, or any of {', '.join(NAMES)}"
    )
    names = parser.parse_args(arguments).names
    if names == ["all"]:
        names = NAMES
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"no benchmark {unknown[0]!r}; choose from {', '.join(NAMES)}")
    for name in names:
        print(f"== {name}", flush=True)
        ended = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if ended.returncode:
            sys.exit(ended.returncode)
    if not names:
        for name in NAMES:
            print(f"{name:<20} {_headline(name)}")
        print("\nRun: make bench [NAME=...]; options: python -m benchmarks.NAME --help")


def _headline(name: str) -> str:
    # The source is parsed, because importing all benchmarks takes seconds.
    source = Path(__file__).with_name(f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


if __name__ == "__main__":
    main()
