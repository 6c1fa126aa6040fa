"""Compares output tokens per second of tdpipe's policies and other engines on the same requests.

Systems take turns, round by round and each in a fresh process, so that a machine that slows down affects all of them
equally. All requests arrive at once and generate a fixed number of tokens, which every system knows in advance. The KV
cache has the same size everywhere and holds only a part of the requests. vLLM and llama.cpp have their own
environments; name their interpreters.

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
from benchmarks.machine import cpu_cores
from benchmarks.report import markdown_table, summarise
from benchmarks.request_mix import make_requests, mix_lengths, scarce_kv_tokens
from benchmarks.results_file import add_json_option, open_results_file
from benchmarks.systems.catalogue import SYSTEMS
from benchmarks.systems.external_engines import EXTERNAL_ENGINES, interpreter_for
from benchmarks.systems.process import run_in_process
from benchmarks.systems.run import BLOCK_SIZE, RunConfig
from tdpipe.core.errors import TDPipeError
from tdpipe.simulation.trace import SYNTHETIC

if TYPE_CHECKING:
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.run import RunResult, System

_DEFAULT_SYSTEMS = ("adaptive-2", "hybrid-2", "temporal-2", "adaptive-1", "generate-batch")


def parse_arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace", type=Path, help=f"CSV file of lengths; default: a {SYNTHETIC} trace"
    )
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        metavar="SYSTEM",
        default=_DEFAULT_SYSTEMS,
        help=f"systems in the order of turns; the last is the baseline; any of {', '.join(SYSTEMS)}",
    )
    parser.add_argument(
        "--kv-tokens", type=int, help="size of the KV cache; default: 40%% of the demand"
    )
    parser.add_argument(
        "--token-budget", type=int, default=512, help="batch tokens of a step with prefill"
    )
    parser.add_argument(
        "--threads", type=int, default=cpu_cores(), help="CPU threads of all stages together"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0, help="seed of the requests and the weights")
    parser.add_argument("--checkpoint", type=Path, help="Llama that benchmarks.checkpoints wrote")
    for engine, external in EXTERNAL_ENGINES.items():
        parser.add_argument(
            external.option,
            type=Path,
            dest=engine,
            metavar="PYTHON",
            help=f"VENV/bin/python of a virtual environment that has the engine: {external.install}",
        )
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "real_work")
    try:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = args.checkpoint or random_llama(Path(folder), seed=args.seed)
            config = _run_config(args, checkpoint)
            runs = _take_turns(config, _interpreters(args), args.rounds)
    except TDPipeError as error:
        sys.exit(str(error))
    baseline = SYSTEMS[args.systems[-1]]
    summaries = summarise(runs, baseline, len(config.requests))
    print(f"{file.heading}\n{_workload(args, config)}\n")
    if software := {each.software for rounds in runs.values() for each in rounds} - {""}:
        print(f"External engines: {'; '.join(sorted(software))}.\n")
    print(markdown_table(summaries, baseline, len(config.requests)))
    file.write(summaries)


def _run_config(args: argparse.Namespace, checkpoint: Path) -> RunConfig:
    lengths = mix_lengths(args.trace, args.requests, args.seed)
    requests = make_requests(lengths, VOCABULARY, args.seed)
    return RunConfig(
        SYSTEMS[args.systems[0]],
        str(checkpoint),
        requests,
        (args.kv_tokens or scarce_kv_tokens(lengths)) // BLOCK_SIZE,
        args.token_budget,
        args.threads,
        args.dtype,
    )


def _interpreters(args: argparse.Namespace) -> dict[System, Path]:
    """Return the systems to measure, in the order of turns, with their interpreters."""
    given = {engine: getattr(args, engine) for engine in EXTERNAL_ENGINES if getattr(args, engine)}
    systems = [SYSTEMS[key] for key in args.systems]
    return {
        system: interpreter_for(system.engine, given, Path(sys.executable)) for system in systems
    }


def _take_turns(
    config: RunConfig, interpreters: dict[System, Path], rounds: int
) -> dict[System, list[RunResult]]:
    runs: dict[System, list[RunResult]] = {system: [] for system in interpreters}
    for number in range(rounds):
        for system, interpreter in interpreters.items():
            print(f"round {number + 1} of {rounds}: {system.name}", file=sys.stderr)
            run = run_in_process(replace(config, system=system), interpreter)
            runs[system].append(run)
            print(
                f"  {_output_tokens(config.requests) / run.seconds:.1f} tokens/s", file=sys.stderr
            )
    return runs


def _workload(args: argparse.Namespace, config: RunConfig) -> str:
    prompts = sum(len(each.prompt) for each in config.requests)
    mix = f"lengths of {args.trace.name}" if args.trace else f"{SYNTHETIC} lengths"
    return (
        f"{len(config.requests)} requests with {mix} divided by four: {prompts} prompt and "
        f"{_output_tokens(config.requests)} output tokens; KV cache of {config.kv_blocks * BLOCK_SIZE} "
        f"tokens, {config.dtype}, {config.threads} threads in total, {args.rounds} rounds."
    )


def _output_tokens(requests: tuple[MixRequest, ...]) -> int:
    return sum(each.output_tokens for each in requests)


if __name__ == "__main__":
    main()
