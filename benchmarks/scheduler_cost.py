"""What the scheduler costs per step, apart from any model.

Drives the real scheduler against a pipeline of no cost in steady decode: `running` sequences hold KV, 100,000 wait. The
time of `next_step` and `on_result` together is given per step and per row, per policy.
"""

from __future__ import annotations

import argparse
import statistics
import time
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

_PROMPT = 100
_OUTPUT = 400
_POLICIES = ("adaptive", "temporal", "hybrid", "throttled", "separate", "reference")


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


def measure(
    scheduler: Scheduler[Any], running: int, steps: int
) -> tuple[list[float], list[int], list[float]]:
    """Seconds and rows of each decode step, and seconds of each other step, once all slots are taken."""
    in_flight: list[Step] = []
    seconds: dict[int, float] = {}
    decode: list[float] = []
    rows: list[int] = []
    other: list[float] = []
    while len(decode) < steps:
        begin = time.thread_time()
        step = scheduler.next_step(0.0)
        took = time.thread_time() - begin
        if isinstance(step, Step):
            in_flight.append(step)
            seconds[step.id] = took
            continue
        done = in_flight.pop(0)
        tokens = np.full(int(done.sample.sum()), 5, dtype=np.int32)
        begin = time.thread_time()
        scheduler.on_result(done.id, tokens, (), 0.0)
        took += time.thread_time() - begin + seconds.pop(done.id)
        full = len(scheduler.state.slots.free) < running // 10
        if full and done.tokens == len(done.slots):
            decode.append(took)
            rows.append(len(done.slots))
        elif full:
            other.append(took)
    return decode, rows, other


def main() -> None:
    """Print a row per policy and number of running sequences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--running", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2_000)
    args = parser.parse_args()
    print(
        "policy    running waiting  rows/step  decode us/step median (p10-p90)  mean  aim us  "
        "other us/step mean"
    )
    for policy in _POLICIES:
        for running in args.running:
            for waiting in args.waiting:
                scheduler = steady_scheduler(policy, running, waiting, args.stages)
                decode, rows, other = measure(scheduler, running, args.steps)
                tenths = statistics.quantiles(decode, n=10)
                mean_rows = statistics.mean(rows)
                print(
                    f"{policy:9} {running:7} {waiting:7} {mean_rows:10.0f}  "
                    f"{statistics.median(decode) * 1e6:10.0f} "
                    f"({tenths[0] * 1e6:.0f}-{tenths[-1] * 1e6:.0f})"
                    f"{statistics.mean(decode) * 1e6:22.0f} {100 + 0.5 * mean_rows:7.0f}"
                    f"{statistics.mean(other) * 1e6 if other else 0:12.0f}"
                )


if __name__ == "__main__":
    main()
