"""What a controller and workers cost, idle and in throughput, beside `tdpipe serve` on the same cores.

    python -m benchmarks.cluster_cost --rounds 3 --json RESULT.json

Both serve the demo model on two CPU stages. The cluster's machines are network namespaces of this machine, so the
benchmark needs root. Rounds alternate between the two, which both run meanwhile, for the ratio of the medians.
Then, while nobody asks, the CPU time of all processes of each is counted, Ray's included; the cluster's alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cluster.network import Machine, connected_machines, why_impossible
from benchmarks.cluster.processes import COMMAND, Cluster, descendants, own_environment
from benchmarks.cluster.streams import stream_all
from benchmarks.results_file import add_json_option, open_results_file

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROMPTS = [f"Count from {first} to {first + 50}.\n" for first in range(1, 49)]
_TOKENS = 300
_IDLE_SECONDS = 60.0
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    cluster: list[float]
    """[rounds] output tokens per second of controller and workers."""
    one_machine: list[float]
    """[rounds] output tokens per second of `tdpipe serve`."""
    idle_cluster: float
    """Share of one core that the idle controller and workers take."""
    idle_one_machine: float
    """Share of one core that the idle `tdpipe serve` takes."""


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-seconds", type=float, default=_IDLE_SECONDS)
    add_json_option(parser)
    options = parser.parse_args()
    if (reason := why_impossible()) is not None:
        parser.error(reason)
    results = open_results_file(options.json, "cluster_cost")
    with connected_machines(4) as machines, tempfile.TemporaryDirectory() as folder:
        settings = {"pipeline": {"stages": 2, "threads_per_stage": 1}}
        cluster = Cluster(Path(folder), machines[:3], settings)
        serve = _serve(machines[3])
        try:
            cluster.start_workers(machines[1:3])
            cluster.start_controller()
            cluster.await_ready()
            figures = _measure(cluster, serve, machines[3], options)
        finally:
            cluster.stop()
            serve.terminate()
            serve.wait()
    results.write(asdict(figures))
    print(results.heading)
    _print(figures)


def _serve(machine: Machine) -> subprocess.Popen[bytes]:
    arguments = ["serve", "--stages", "2", "--device", "cpu", "--host", "0.0.0.0"]
    return subprocess.Popen(
        machine.command([*COMMAND, *arguments]), env=own_environment(), stderr=subprocess.DEVNULL
    )


def _measure(
    cluster: Cluster,
    serve: subprocess.Popen[bytes],
    machine: Machine,
    options: argparse.Namespace,
) -> Figures:
    assert cluster.controller is not None
    url = f"http://{machine.address}:8000"
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(options.rounds + 1):
        for place, (where, address) in enumerate(
            ((cluster.machines[0], cluster.url), (machine, url))
        ):
            rate = where.call(lambda address=address: _rate(address))  # type: ignore[misc]
            if number:  # the first round warms up
                rates[place].append(rate)
    time.sleep(_SETTLE_SECONDS)
    roots = [cluster.controller.pid, *(worker.process.pid for worker in cluster.workers)]
    idle_serve = _idle([serve.pid], options.idle_seconds)
    # What runs next to the idle cluster changes what its wake-ups cost.
    serve.terminate()
    serve.wait()
    time.sleep(_SETTLE_SECONDS)
    return Figures(*rates, _idle(roots, options.idle_seconds), idle_serve)


def _rate(url: str) -> float:
    began = time.monotonic()
    streams = stream_all(url, _PROMPTS, _TOKENS)
    seconds = time.monotonic() - began
    tokens = [stream.tokens for stream in streams]
    if tokens != [_TOKENS] * len(_PROMPTS):
        raise RuntimeError(f"streams of {url} ended wrongly: {tokens}")
    return _TOKENS * len(_PROMPTS) / seconds


def _idle(roots: Sequence[int], seconds: float) -> float:
    """Return the share of one core that processes, with all their descendants, take."""
    pids = [pid for root in roots for pid in (root, *descendants(root))]
    before = sum(map(_cpu_ticks, pids))
    time.sleep(seconds)
    return (sum(map(_cpu_ticks, pids)) - before) / (seconds * os.sysconf("SC_CLK_TCK"))


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _print(figures: Figures) -> None:
    print("| | output tokens/s, median (min-max) | idle, share of a core |\n|---|---|---|")
    rows = (
        ("`tdpipe controller` and 2 `tdpipe worker`", figures.cluster, figures.idle_cluster),
        ("`tdpipe serve`", figures.one_machine, figures.idle_one_machine),
    )
    for name, rates, idle in rows:
        spread = f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"
        print(f"| {name} | {spread} | {idle:.1%} |")
    ratio = statistics.median(figures.cluster) / statistics.median(figures.one_machine)
    rounds = [one / other for one, other in zip(figures.cluster, figures.one_machine, strict=True)]
    print(f"\nRatio of the medians {ratio:.2f}, per round {min(rounds):.2f}-{max(rounds):.2f}.")


if __name__ == "__main__":
    main()
