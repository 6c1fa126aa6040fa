"""Kills stages and workers of a cluster at random while it serves, and measures the pauses that clients see.

    python -m benchmarks.recovery --kills 20 --minutes 10 --unplugs 3 --json RESULT.json

The controller and two workers run in network namespaces of this machine, so it needs root. A supervisor does what an
operator does: when a worker has gone, it replaces all of them by those of the next epoch. Streams of a fixed length
follow each other all the time, and each must bring the text of an unharmed run, once.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.cluster.network import connected_machines, why_impossible
from benchmarks.cluster.processes import Cluster, kill, wait_until
from benchmarks.cluster.streams import Stream, client, stream_all, stream_completion
from benchmarks.results_file import add_json_option, open_results_file

_PROMPTS = [f"Count from {first} to {first + 55}.\n" for first in (1, 20, 41, 60)]
_TOKENS = 600
_SETTLE_SECONDS = 5.0
_READY_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Harm:
    """One thing that was done to the cluster."""

    kind: str
    """`stage`, `worker` or `plug`."""
    pause: float
    """Longest time, in seconds, in which a running stream got nothing."""


class Load:
    """Clients that stream one request after another, in a thread on the controller's machine."""

    def __init__(self, cluster: Cluster, unharmed: dict[str, str]) -> None:
        self._cluster = cluster
        self._unharmed = unharmed
        self._stopping = threading.Event()
        self.served = 0
        self.wrong: list[Stream] = []
        self.running: dict[int, Stream] = {}
        self._thread = threading.Thread(
            target=lambda: cluster.machines[0].call(lambda: asyncio.run(self._run()))
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the running streams end, and wait for them."""
        self._stopping.set()
        self._thread.join()

    def pause_since(self, moment: float) -> float:
        """Return the longest time since `moment` in which a stream that ran then got nothing."""
        gaps = []
        for stream in self.running.values():
            times = [moment, *(each for each in stream.times if each > moment)]
            gaps += [later - earlier for earlier, later in pairwise(times)]
        return max(gaps, default=0.0)

    async def _run(self) -> None:
        async with client(self._cluster.url) as http:

            async def stream_on(number: int) -> None:
                while not self._stopping.is_set():
                    prompt = _PROMPTS[number]
                    seen = self.running[number] = Stream()
                    await stream_completion(http, prompt, _TOKENS, seen)
                    self.served += 1
                    if seen.error or seen.tokens != _TOKENS or seen.text != self._unharmed[prompt]:
                        self.wrong.append(seen)

            await asyncio.gather(*(stream_on(number) for number in range(len(_PROMPTS))))


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="stages and workers to kill")
    parser.add_argument("--minutes", type=float, default=10.0, help="time to spread the kills over")
    parser.add_argument("--unplugs", type=int, default=3, help="machines to cut off after that")
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    options = parser.parse_args()
    if (reason := why_impossible()) is not None:
        parser.error(reason)
    results = open_results_file(options.json, "recovery")
    with (
        connected_machines(4) as machines,
        tempfile.TemporaryDirectory() as folder,
    ):
        settings = {
            "pipeline": {"stages": 2, "threads_per_stage": 1},
            "recovery": {"max_restarts": 1000, "max_restarts_per_hour": 1000},
        }
        cluster = Cluster(Path(folder), machines, settings)
        try:
            harms, load = _measure(cluster, options, random.Random(options.seed))
        finally:
            cluster.stop()
    results.write([asdict(harm) for harm in harms])
    print(results.heading)
    _print(harms, load)


def _measure(
    cluster: Cluster, options: argparse.Namespace, draw: random.Random
) -> tuple[list[Harm], Load]:
    cluster.start_workers(cluster.machines[1:3])
    cluster.start_controller()
    cluster.await_ready()
    streams = cluster.machines[0].call(lambda: stream_all(cluster.url, _PROMPTS, _TOKENS))
    unharmed = dict(zip(_PROMPTS, (stream.text for stream in streams), strict=True))
    load = Load(cluster, unharmed)
    load.start()
    harms: list[Harm] = []
    try:
        began = time.monotonic()
        for number in range(options.kills):
            due = began + (number + draw.random()) * options.minutes * 60 / options.kills
            time.sleep(max(_SETTLE_SECONDS, due - time.monotonic()))
            harms.append(_harm(cluster, load, draw.choice(("stage", "worker")), draw))
            print(harms[-1], flush=True)
        for _ in range(options.unplugs):
            time.sleep(_SETTLE_SECONDS)
            harms.append(_harm(cluster, load, "plug", draw))
            print(harms[-1], flush=True)
    finally:
        load.stop()
    return harms, load


def _harm(cluster: Cluster, load: Load, kind: str, draw: random.Random) -> Harm:
    cluster.await_ready(_READY_SECONDS)
    victim = draw.choice(cluster.workers)
    machines = [worker.machine for worker in cluster.workers]
    before = set(cluster.stages())
    moment = time.monotonic()
    if kind == "stage":
        kill(draw.choice(sorted(before)))
    elif kind == "worker":
        kill(victim.process.pid)
        cluster.replace_workers(machines)
    else:
        victim.machine.unplug()
        spare = next(each for each in cluster.machines[1:] if each not in machines)
        cluster.replace_workers(
            [each if each is not victim.machine else spare for each in machines]
        )

    def resumed() -> bool:
        return all(
            stream.times and stream.times[-1] > moment + _SETTLE_SECONDS
            for stream in load.running.values()
        )

    wait_until(lambda: not before & set(cluster.stages()), _READY_SECONDS)
    wait_until(resumed, _READY_SECONDS)
    victim.machine.plug_in()
    return Harm(kind, load.pause_since(moment))


def _print(harms: list[Harm], load: Load) -> None:
    print("| what | times | pause in seconds: least - median - most |\n|---|---|---|")
    for kind, name in (
        ("stage", "stage killed"),
        ("worker", "worker killed"),
        ("plug", "plug pulled"),
    ):
        pauses = [harm.pause for harm in harms if harm.kind == kind]
        if pauses:
            figures = f"{min(pauses):.1f} - {statistics.median(pauses):.1f} - {max(pauses):.1f}"
            print(f"| {name} | {len(pauses)} | {figures} |")
    print(f"\n{load.served} streams of {_TOKENS} tokens ended, {len(load.wrong)} of them wrongly.")
    for stream in load.wrong[:5]:
        print(stream.tokens, stream.error)
    if load.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
