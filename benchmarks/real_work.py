"""Output tokens per second on the same requests: tdpipe's policies and other engines, side by side.

Systems take turns on the same requests, round by round, each in a fresh process, so that a machine
that slows down slows all alike. All requests come at once and generate exactly as many tokens as
the mix says, whatever these are; every system knows that number beforehand and has the same KV
cache, which holds a part of them only. vLLM and llama.cpp have environments of their own, whose
interpreters are to be named.

    python -m benchmarks.real_work --trace LENGTHS.csv --json RESULT.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.checkpoints import VOCABULARY, random_llama
from benchmarks.figures_file import add_json_option, open_figures
from benchmarks.machine import cpu_cores
from benchmarks.report import markdown_table, summarise
from benchmarks.request_mix import make_requests, mix_lengths, scarce_kv_tokens
from benchmarks.systems.catalogue import SYSTEMS
from benchmarks.systems.job import BLOCK_SIZE, Job
from benchmarks.systems.peers import PEERS, interpreter_of
from benchmarks.systems.process import run_in_process
from tdpipe.core.errors import TDPipeError
from tdpipe.simulation.trace import SYNTHETIC

if TYPE_CHECKING:
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.job import Run, System

_DEFAULT_SYSTEMS = ("adaptive-2", "hybrid-2", "temporal-2", "adaptive-1", "generate-batch")


def parse_arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help=f"CSV of lengths, else a {SYNTHETIC} mix")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        metavar="SYSTEM",
        default=_DEFAULT_SYSTEMS,
        help=f"in the order of turns, the last is the baseline; of {', '.join(SYSTEMS)}",
    )
    parser.add_argument("--kv-tokens", type=int, help="of the KV cache; else 40%% of the demand")
    parser.add_argument("--token-budget", type=int, default=512, help="of steps with prefill")
    parser.add_argument("--threads", type=int, default=cpu_cores(), help="of all stages together")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0, help="of the requests and the weights")
    parser.add_argument("--checkpoint", type=Path, help="a llama made by benchmarks.checkpoints")
    for engine, peer in PEERS.items():
        parser.add_argument(
            peer.option,
            type=Path,
            dest=engine,
            metavar="PYTHON",
            help=f"VENV/bin/python of a virtual environment that has it: {peer.install}",
        )
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_figures(args.json, "real_work")
    try:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = args.checkpoint or random_llama(Path(folder), seed=args.seed)
            job = _job(args, checkpoint)
            runs = _take_turns(job, _interpreters(args), args.rounds)
    except TDPipeError as error:
        sys.exit(str(error))
    baseline = SYSTEMS[args.systems[-1]]
    summaries = summarise(runs, baseline, len(job.requests))
    print(f"{file.heading}\n{_workload(args, job)}\n")
    if software := {each.software for rounds in runs.values() for each in rounds} - {""}:
        print(f"Peers: {'; '.join(sorted(software))}.\n")
    print(markdown_table(summaries, baseline, len(job.requests)))
    file.write(summaries)


def _job(args: argparse.Namespace, checkpoint: Path) -> Job:
    lengths = mix_lengths(args.trace, args.requests, args.seed)
    requests = make_requests(lengths, VOCABULARY, args.seed)
    return Job(
        SYSTEMS[args.systems[0]],
        str(checkpoint),
        requests,
        (args.kv_tokens or scarce_kv_tokens(lengths)) // BLOCK_SIZE,
        args.token_budget,
        args.threads,
        args.dtype,
    )


def _interpreters(args: argparse.Namespace) -> dict[System, Path]:
    """The systems to measure, in their order, and what runs each."""
    given = {engine: getattr(args, engine) for engine in PEERS if getattr(args, engine)}
    systems = [SYSTEMS[key] for key in args.systems]
    return {
        system: interpreter_of(system.engine, given, Path(sys.executable)) for system in systems
    }


def _take_turns(job: Job, interpreters: dict[System, Path], rounds: int) -> dict[System, list[Run]]:
    runs: dict[System, list[Run]] = {system: [] for system in interpreters}
    for number in range(rounds):
        for system, interpreter in interpreters.items():
            print(f"round {number + 1} of {rounds}: {system.name}", file=sys.stderr)
            run = run_in_process(replace(job, system=system), interpreter)
            runs[system].append(run)
            print(f"  {_output_tokens(job.requests) / run.seconds:.1f} tokens/s", file=sys.stderr)
    return runs


def _workload(args: argparse.Namespace, job: Job) -> str:
    prompts = sum(len(each.prompt) for each in job.requests)
    mix = f"lengths of {args.trace.name}" if args.trace else f"{SYNTHETIC} lengths"
    return (
        f"{len(job.requests)} requests with {mix} divided by four: {prompts} prompt and "
        f"{_output_tokens(job.requests)} output tokens; KV cache of {job.kv_blocks * BLOCK_SIZE} "
        f"tokens, {job.dtype}, {job.threads} threads in all, {args.rounds} rounds."
    )


def _output_tokens(requests: tuple[MixRequest, ...]) -> int:
    return sum(each.output_tokens for each in requests)


if __name__ == "__main__":
    main()
