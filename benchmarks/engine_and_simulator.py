"""Compares the simulator with the real engine on this machine's CPU, on the same requests.

Each pair measures a profile of the stages as `tdpipe profile` does, serves the requests with the engine, and simulates
them with that profile. A machine whose speed drifts therefore changes both sides of a pair equally. Engine and
simulator have the same policy, settings and KV cache, and both know all output lengths.

    python -m benchmarks.engine_and_simulator --trace LENGTHS.csv --json RESULT.json
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
from benchmarks.request_mix import make_requests, mix_lengths, scarce_kv_tokens
from benchmarks.results_file import add_json_option, open_results_file
from benchmarks.simulation_pairs import Pair, Side, report
from benchmarks.systems.background_load import BackgroundLoad
from benchmarks.systems.process import call_in_process, run_in_process
from benchmarks.systems.run import BLOCK_SIZE, RunConfig, System
from benchmarks.systems.tdpipe_engine import engine_settings
from tdpipe.core.errors import TDPipeError
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.profile import read_profile_file, write_profile_file
from tdpipe.measurement.measured_profile import measure_profile
from tdpipe.simulation.candidate import Candidate, simulate
from tdpipe.simulation.figures import Figures, figures_of
from tdpipe.simulation.scenario import profiled_scenario
from tdpipe.simulation.trace import SYNTHETIC
from tdpipe.simulation.workload import Job as SimulatedJob

if TYPE_CHECKING:
    from tdpipe.measurement.profile_fit import KindError

_POLICIES = ("adaptive", "temporal", "hybrid")


def parse_arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace", type=Path, help=f"CSV file of lengths; default: a {SYNTHETIC} trace"
    )
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs per policy")
    parser.add_argument("--policies", nargs="+", choices=_POLICIES, default=["adaptive"])
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument(
        "--threads", type=int, default=cpu_cores(), help="CPU threads of all stages together"
    )
    parser.add_argument(
        "--profile-seconds", type=float, default=40.0, help="duration of each profile"
    )
    parser.add_argument(
        "--kv-tokens", type=int, help="size of the KV cache; default: 40%% of the demand"
    )
    parser.add_argument(
        "--token-budget", type=int, default=512, help="batch tokens of a step with prefill"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the requests and the weights")
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "engine_and_simulator")
    pairs: dict[str, list[Pair]] = {policy: [] for policy in args.policies}
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = _run_config(args, random_llama(Path(folder) / "model", seed=args.seed))
            for number in range(args.pairs):
                for policy in args.policies:
                    print(f"pair {number + 1} of {args.pairs}: {policy}", file=sys.stderr)
                    system = replace(config.system, name=policy, policy=policy)
                    pair = measure_pair(
                        replace(config, system=system), args.profile_seconds, Path(folder)
                    )
                    pairs[policy].append(pair)
                    print(f"  simulated / engine: {pair.ratio:.3f}", file=sys.stderr)
    except TDPipeError as error:
        sys.exit(str(error))
    outputs = sum(each.output_tokens for each in config.requests)
    prompts = sum(len(each.prompt) for each in config.requests)
    print(
        f"{file.heading}\n{len(config.requests)} requests: {prompts} prompt and {outputs} output tokens; "
        f"KV cache of {config.kv_blocks * BLOCK_SIZE} tokens.\n"
    )
    print("\n".join(report(pairs)))
    file.write(pairs)


def measure_pair(config: RunConfig, profile_seconds: float, folder: Path) -> Pair:
    """Measure a profile, then serve and simulate the requests with it.

    Args:
        config: Run without a profile.
        profile_seconds: Duration of the measurement of the profile.
        folder: Folder in which the profile is written.

    Raises:
        TDPipeError: the pipeline does not start, or it fails.
    """
    file = folder / "profile.json"
    fit, background = call_in_process(write_profile, config, profile_seconds, file)
    config = replace(config, profile=str(file))
    run = run_in_process(config, Path(sys.executable))
    assert run.phase_switches is not None
    engine = Side(
        sum(map(len, run.outputs)) / run.seconds,
        tuple(1.0 - stage.busy / run.seconds for stage in run.stages),
        run.phase_switches,
    )
    figures = simulated_figures(config)
    simulated = Side(figures.output_tokens_per_second, figures.bubble, figures.phase_switches)
    return Pair(
        config.system.name, engine, simulated, fit, run.steps, (background, run.background_cores)
    )


def write_profile(
    config: RunConfig, seconds: float, file: Path
) -> tuple[dict[str, KindError], float]:
    """Measure the pipeline of `config` and write its profile to `file`; called in a fresh process.

    Returns:
        Error of the fit by kind of step, and the cores that unrelated processes kept busy during the measurement.

    Raises:
        TDPipeError: the pipeline does not start, or it fails.
    """
    progress = _Progress()
    profile, fit = measure_profile(engine_settings(config), seconds, progress)
    write_profile_file(file, profile)
    return {str(kind): error for kind, error in fit.errors.items()}, progress.background_cores


def simulated_figures(config: RunConfig) -> Figures:
    """Simulate the run with its profile.

    Raises:
        TDPipeError: the profile cannot be read, or a request does not fit.
    """
    assert config.profile is not None
    file = Path(config.profile)
    scenario = profiled_scenario(
        read_profile_file(file, "--profile"), file.name, config.kv_blocks * BLOCK_SIZE
    )
    jobs = [
        SimulatedJob(
            len(each.prompt),
            each.output_tokens,
            LengthDistribution((each.output_tokens,)),
            each.output_tokens,
        )
        for each in config.requests
    ]
    candidate = Candidate(config.system.name, engine_settings(config).scheduler)
    record, _ = simulate(candidate, scenario, jobs)
    return figures_of(candidate.name, record)


def _run_config(args: argparse.Namespace, checkpoint: Path) -> RunConfig:
    lengths = mix_lengths(args.trace, args.requests, args.seed)
    return RunConfig(
        System("adaptive", "tdpipe", args.stages, "adaptive"),
        str(checkpoint),
        make_requests(lengths, VOCABULARY, args.seed),
        (args.kv_tokens or scarce_kv_tokens(lengths)) // BLOCK_SIZE,
        args.token_budget,
        args.threads,
        "float32",
    )


class _Progress:
    """Prints progress and updates the background load, which must be read before the stages end.

    CPU time of stages that have ended can no longer be distinguished from that of unrelated processes.
    """

    def __init__(self) -> None:
        self._load = BackgroundLoad()
        self.background_cores = 0.0

    def __call__(self, line: str) -> None:
        self.background_cores = self._load.cores()
        print(f"  {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
