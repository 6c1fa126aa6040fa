"""Checks in one process and a few minutes that tdpipe is correct on a GPU, and how much of the GPU it uses.

    python -m benchmarks.gpu_check --output gpu-results

It needs no Ray, no network and no downloaded model. `--dry` runs every part on a CPU with tiny shapes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.command_line import shown_command
from benchmarks.gpu_check.card import describe_card
from benchmarks.gpu_check.context import CheckContext, temporary_folder
from benchmarks.gpu_check.part import Status, run_part
from benchmarks.gpu_check.part_list import list_parts, select_parts
from benchmarks.gpu_check.report import write_report
from benchmarks.gpu_check.scale import DRY, FULL


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="directory of the results; default: a temporary one",
    )
    parser.add_argument("--seconds", type=float, default=480.0, help="time for all parts together")
    parser.add_argument(
        "--stages", type=int, default=1, help="pipeline stages of the large model on the device"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TEXT", help="run the parts whose names contain one of these"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run all parts and print a line for each, then the table.

    Args:
        arguments: without the program's name; None takes them from `sys.argv`.

    Returns:
        Exit status: 1 if a part failed, 2 if there is no GPU.
    """
    args = parse_arguments(arguments)
    end = time.monotonic() + args.seconds
    if not args.dry and not torch.cuda.is_available():
        print("torch finds no CUDA device here; use --dry to go through the parts on a CPU")
        return 2
    disable_progress_bar()
    device = torch.device("cpu" if args.dry else "cuda")
    if args.dry:
        torch.set_num_threads(1)
    output = args.output or Path(tempfile.mkdtemp(prefix="gpu-check-results-"))
    output.mkdir(parents=True, exist_ok=True)
    machine, command = describe_card(device), shown_command("gpu_check")
    print(f"{machine}\nresults: {output}", flush=True)
    outcomes = []
    with ExitStack() as cleanup:
        scratch = Path(cleanup.enter_context(temporary_folder()))
        scale = DRY if args.dry else FULL
        context = CheckContext(device, scale, output, scratch, cleanup, args.stages)
        parts = list_parts(context)
        for part in select_parts(parts, args.only) if args.only else parts:
            outcome = run_part(part, end)
            outcomes.append(outcome)
            print(
                f"{outcome.seconds:6.1f} s  {outcome.status:<7}  {part.name}: {outcome.text}",
                flush=True,
            )
            write_report(output, machine, command, outcomes)
            context.release_memory()
    print(f"\n{write_report(output, machine, command, outcomes)}")
    return int(any(outcome.status is Status.FAILED for outcome in outcomes))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a part that took too long may still hold a thread that never ends
