"""Measures the CPU time of the scheduler per step, without a model.

The real scheduler runs against a pipeline that costs nothing; `running` sequences hold KV and up to 100,000 wait. The
table has the time of `next_step` and `on_result` together, by policy, for decode steps and for steps with prefill.

    python -m benchmarks.scheduler_cost --json RESULT.json
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

import numpy as np

from benchmarks.results_file import add_json_option, open_results_file
from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.settings import SchedulerSettings
from tdpipe.core.step import Step
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.candidate import POLICY_NAMES
from tdpipe.simulation.stage_timeline import ControlOnStage

_PROMPT = 100
_OUTPUT = 400
_CLOCK = 1e6
"""Current time in seconds. The last arrival is so long ago that the scheduler expects no more requests, which is its
most expensive case."""
TARGET = ControlOnStage(100e-6, 0.5e-6)
"""Upper limit of the scheduler's cost per decode step."""
_HEADER = (
    "| policy | running | waiting | rows per step | decode us: median (10th-90th percentile) | mean | target | steps "
    "| with prefill us: median | mean | steps |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def steady_scheduler(policy: str, running: int, waiting: int, stages: int) -> Scheduler:
    """Return a scheduler whose slots are all taken, by sequences of different ages."""
    settings = SchedulerSettings(policy=policy, max_running=running)  # type: ignore[arg-type]
    blocks = running * (_PROMPT + _OUTPUT) // 16 * 2
    capacity = Capacity(blocks, 16, running, 2048)
    scheduler = Scheduler(make_policy(settings), capacity, proportional_cost(stages))
    draw = np.random.default_rng(0)
    lengths = LengthDistribution((100, 200, 400, 800))
    for number in range(running + waiting):
        max_tokens = int(draw.integers(_OUTPUT // 2, _OUTPUT * 2))
        scheduler.add(Request(str(number), (1,) * _PROMPT, max_tokens, lengths), 0.0)
    return scheduler


@dataclass(slots=True)
class Costs:
    """Cost of steps while all slots are taken."""

    decode: list[float] = field(default_factory=list)
    """Seconds of each decode step."""
    rows: list[int] = field(default_factory=list)
    """Number of rows of each decode step."""
    other: list[float] = field(default_factory=list)
    """Seconds of each step with prefill."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Cost of steps of one kind in microseconds; 0 if there are none."""

    steps: int
    mean: float
    percentiles: tuple[float, ...]
    """10th, 50th and 90th percentile."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A row of the table."""

    policy: str
    running: int
    waiting: int
    rows: float
    """Mean number of rows of a decode step."""
    decode: Summary
    other: Summary
    """Cost of steps with prefill."""

    @property
    def target(self) -> float:
        """Upper limit of the cost of a decode step in microseconds."""
        return 1e6 * (TARGET.step + TARGET.row * self.rows)


def measure(scheduler: Scheduler, running: int, steps: int) -> Costs:
    """Measure the cost of `steps` steps, or of fewer if all requests end before."""
    in_flight: list[Step] = []
    seconds: dict[int, float] = {}
    costs = Costs()
    while len(costs.decode) + len(costs.other) < steps:
        begin = time.thread_time()
        step = scheduler.next_step(_CLOCK)
        took = time.thread_time() - begin
        if isinstance(step, Step):
            in_flight.append(step)
            seconds[step.id] = took
            continue
        if not in_flight:
            break
        done = in_flight.pop(0)
        tokens = np.full(int(done.sample.sum()), 5, dtype=np.int32)
        begin = time.thread_time()
        scheduler.on_result(done.id, tokens)
        took += time.thread_time() - begin + seconds.pop(done.id)
        if len(scheduler.state.slots.free) >= running // 10:
            continue
        if done.tokens == len(done.slots):
            costs.decode.append(took)
            costs.rows.append(len(done.slots))
        else:
            costs.other.append(took)
    return costs


def summarise(seconds: list[float]) -> Summary:
    """Summarise the seconds of steps of one kind."""
    if not seconds:
        return Summary(0, 0.0, (0.0,) * 3)
    times = np.array(seconds) * 1e6
    return Summary(
        len(seconds), float(times.mean()), tuple(np.percentile(times, (10, 50, 90)).tolist())
    )


def main() -> None:
    """Measure, and print a section for a page of `docs/benchmarks/`: a row per policy and number of sequences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", nargs="+", choices=POLICY_NAMES, default=POLICY_NAMES)
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--running", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2_000)
    add_json_option(parser)
    args = parser.parse_args()
    file = open_results_file(args.json, "scheduler_cost")
    cells = []
    print(f"{file.heading}\n{_HEADER}")
    for policy in args.policies:
        for running in args.running:
            for waiting in args.waiting:
                scheduler = steady_scheduler(policy, running, waiting, args.stages)
                costs = measure(scheduler, running, args.steps)
                rows = float(np.mean(costs.rows or [0]))
                decode, other = summarise(costs.decode), summarise(costs.other)
                cells.append(Cell(policy, running, waiting, rows, decode, other))
                print(_row(cells[-1]), flush=True)
    file.write(cells)


def _row(cell: Cell) -> str:
    low, median, high = cell.decode.percentiles
    cells = (
        cell.policy,
        f"{cell.running}",
        f"{cell.waiting}",
        f"{cell.rows:.0f}",
        f"{median:.0f} ({low:.0f}-{high:.0f})",
        f"{cell.decode.mean:.0f}",
        f"{cell.target:.0f}",
        f"{cell.decode.steps}",
        f"{cell.other.percentiles[1]:.0f}",
        f"{cell.other.mean:.0f}",
        f"{cell.other.steps}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
