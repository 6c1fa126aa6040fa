"""What the scheduler costs per step, apart from any model.

Drives the real scheduler against a pipeline of no cost: `running` sequences hold KV, up to 100,000 wait. The time of
`next_step` and `on_result` together is given per policy, for decode steps and for those that hold prefill.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.settings import SchedulerSettings
from tdpipe.core.step import Step
from tdpipe.scheduling.answers import Shape
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.contestant import NAMES

_PROMPT = 100
_OUTPUT = 400


def steady_scheduler(policy: str, running: int, waiting: int, stages: int) -> Scheduler[Any]:
    """A scheduler whose slots are all taken by sequences of staggered ages."""
    settings = SchedulerSettings(policy=policy, max_running=running)  # type: ignore[arg-type]
    blocks = running * (_PROMPT + _OUTPUT) // 16 * 2
    shape = Shape(stages, blocks, 16, running, 2048)
    scheduler = Scheduler(make_policy(settings), shape, proportional_cost(stages))
    draw = np.random.default_rng(0)
    lengths = LengthDistribution((100, 200, 400, 800))
    for number in range(running + waiting):
        most = int(draw.integers(_OUTPUT // 2, _OUTPUT * 2))
        scheduler.add(Request(str(number), (1,) * _PROMPT, most, lengths), 0.0)
    return scheduler


@dataclass(slots=True)
class Costs:
    """What steps cost while all slots are taken."""

    decode: list[float] = field(default_factory=list)
    """Seconds of each decode step."""
    rows: list[int] = field(default_factory=list)
    """Of each decode step."""
    other: list[float] = field(default_factory=list)
    """Seconds of each step that holds prefill."""


def measure(scheduler: Scheduler[Any], running: int, steps: int) -> Costs:
    """Costs of so many steps, or of those until all work is done."""
    in_flight: list[Step] = []
    seconds: dict[int, float] = {}
    costs = Costs()
    while len(costs.decode) + len(costs.other) < steps:
        begin = time.thread_time()
        step = scheduler.next_step(0.0)
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
        scheduler.on_result(done.id, tokens, (), 0.0)
        took += time.thread_time() - begin + seconds.pop(done.id)
        if len(scheduler.state.slots.free) >= running // 10:
            continue
        if done.tokens == len(done.slots):
            costs.decode.append(took)
            costs.rows.append(len(done.slots))
        else:
            costs.other.append(took)
    return costs


def main() -> None:
    """Print a row per policy and number of running sequences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--running", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2_000)
    args = parser.parse_args()
    print(
        f"{'policy':9} {'running':>7} {'waiting':>7} {'rows':>5} {'decode us: median (p10-p90)':>28} {'mean':>5} "
        f"{'aim':>5} {'steps':>6} {'with prefill us: median':>24} {'mean':>5} {'steps':>6}"
    )
    for policy in NAMES:
        for running in args.running:
            for waiting in args.waiting:
                scheduler = steady_scheduler(policy, running, waiting, args.stages)
                costs = measure(scheduler, running, args.steps)
                print(f"{policy:9} {running:7} {waiting:7} {_row(costs)}", flush=True)


def _row(costs: Costs) -> str:
    decode, other = np.array(costs.decode or [0.0]) * 1e6, np.array(costs.other or [0.0]) * 1e6
    rows = float(np.mean(costs.rows or [0]))
    low, median, high = np.percentile(decode, (10, 50, 90))
    return (
        f"{rows:5.0f} {f'{median:.0f} ({low:.0f}-{high:.0f})':>28} {decode.mean():5.0f} {100 + 0.5 * rows:5.0f} "
        f"{len(costs.decode):6} {np.median(other):24.0f} {other.mean():5.0f} {len(costs.other):6}"
    )


if __name__ == "__main__":
    main()
