"""How true the simulator is: the real engine on this machine's CPU beside a simulation of the same requests.

Pair by pair: a profile of the stages is measured as `tdpipe profile` does it, the engine serves the requests with it,
and the simulator serves them by it. A machine that drifts between pairs thus changes both sides; what it does within a
pair is the noise. Engine and simulator have the same policy, settings, KV cache and knowledge of lengths: all of it.

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
from benchmarks.figures_file import add_json_option, open_figures
from benchmarks.machine import cpu_cores
from benchmarks.request_mix import make_requests, mix_lengths, scarce_kv_tokens
from benchmarks.simulation_pairs import Pair, Side, report
from benchmarks.systems.engine import engine_settings
from benchmarks.systems.foreign_load import ForeignLoad
from benchmarks.systems.job import BLOCK_SIZE, Job, System
from benchmarks.systems.process import call_in_process, run_in_process
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
    parser.add_argument("--trace", type=Path, help=f"CSV of lengths, else a {SYNTHETIC} mix")
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--pairs", type=int, default=5, help="of each policy")
    parser.add_argument("--policies", nargs="+", choices=_POLICIES, default=["adaptive"])
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--threads", type=int, default=cpu_cores(), help="of all stages together")
    parser.add_argument("--profile-seconds", type=float, default=40.0, help="of each profile")
    parser.add_argument("--kv-tokens", type=int, help="of the KV cache; else 40%% of the demand")
    parser.add_argument("--token-budget", type=int, default=512, help="of steps with prefill")
    parser.add_argument("--seed", type=int, default=0, help="of the requests and the weights")
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_figures(args.json, "engine_and_simulator")
    pairs: dict[str, list[Pair]] = {policy: [] for policy in args.policies}
    try:
        with tempfile.TemporaryDirectory() as folder:
            job = _job(args, random_llama(Path(folder) / "model", seed=args.seed))
            for number in range(args.pairs):
                for policy in args.policies:
                    print(f"pair {number + 1} of {args.pairs}: {policy}", file=sys.stderr)
                    system = replace(job.system, name=policy, policy=policy)
                    pair = measure_pair(
                        replace(job, system=system), args.profile_seconds, Path(folder)
                    )
                    pairs[policy].append(pair)
                    print(f"  simulated / engine: {pair.ratio:.3f}", file=sys.stderr)
    except TDPipeError as error:
        sys.exit(str(error))
    outputs = sum(each.output_tokens for each in job.requests)
    prompts = sum(len(each.prompt) for each in job.requests)
    print(
        f"{file.heading}\n{len(job.requests)} requests: {prompts} prompt and {outputs} output tokens; "
        f"KV cache of {job.kv_blocks * BLOCK_SIZE} tokens.\n"
    )
    print("\n".join(report(pairs)))
    file.write(pairs)


def measure_pair(job: Job, profile_seconds: float, folder: Path) -> Pair:
    """Measure a profile, serve with it, and simulate by it.

    Args:
        job: whose profile is to be measured.
        profile_seconds: that measuring takes.
        folder: for the profile's file.

    Raises:
        TDPipeError: the pipeline does not start, or fails.
    """
    file = folder / "profile.json"
    fit, foreign = call_in_process(write_profile, job, profile_seconds, file)
    job = replace(job, profile=str(file))
    run = run_in_process(job, Path(sys.executable))
    assert run.phase_switches is not None
    engine = Side(
        sum(map(len, run.outputs)) / run.seconds,
        tuple(1.0 - stage.busy / run.seconds for stage in run.stages),
        run.phase_switches,
    )
    figures = simulated_figures(job)
    simulated = Side(figures.output_tokens_per_second, figures.bubble, figures.phase_switches)
    return Pair(job.system.name, engine, simulated, fit, run.steps, (foreign, run.foreign_cores))


def write_profile(job: Job, seconds: float, file: Path) -> tuple[dict[str, KindError], float]:
    """Measure the job's pipeline into `file`, for a process of its own.

    Returns:
        The fit's error by kind of step, and the cores that others kept busy meanwhile.

    Raises:
        TDPipeError: the pipeline does not start, or fails.
    """
    progress = _Progress()
    profile, fit = measure_profile(engine_settings(job), seconds, progress)
    write_profile_file(file, profile)
    return {str(kind): error for kind, error in fit.errors.items()}, progress.foreign_cores


def simulated_figures(job: Job) -> Figures:
    """The run that the job's profile foretells.

    Raises:
        TDPipeError: the profile cannot be read, or a request does not fit.
    """
    assert job.profile is not None
    file = Path(job.profile)
    scenario = profiled_scenario(
        read_profile_file(file, "--profile"), file.name, job.kv_blocks * BLOCK_SIZE
    )
    jobs = [
        SimulatedJob(
            len(each.prompt),
            each.output_tokens,
            LengthDistribution((each.output_tokens,)),
            each.output_tokens,
        )
        for each in job.requests
    ]
    candidate = Candidate(job.system.name, engine_settings(job).scheduler)
    record, _ = simulate(candidate, scenario, jobs)
    return figures_of(candidate.name, record)


def _job(args: argparse.Namespace, checkpoint: Path) -> Job:
    lengths = mix_lengths(args.trace, args.requests, args.seed)
    return Job(
        System("adaptive", "tdpipe", args.stages, "adaptive"),
        str(checkpoint),
        make_requests(lengths, VOCABULARY, args.seed),
        (args.kv_tokens or scarce_kv_tokens(lengths)) // BLOCK_SIZE,
        args.token_budget,
        args.threads,
        "float32",
    )


class _Progress:
    """Tells what is going on, and what others computed up to then: ended stages would count, too."""

    def __init__(self) -> None:
        self._load = ForeignLoad()
        self.foreign_cores = 0.0

    def __call__(self, line: str) -> None:
        self.foreign_cores = self._load.cores()
        print(f"  {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
