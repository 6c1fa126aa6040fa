"""The workers that have joined, as Ray's table of nodes shows them.

A worker's node carries a resource that names its epoch and its place. No other protocol is needed, and a controller
that starts late, or again, finds the same table. This module only reads plain values, so it needs no Ray.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_RESOURCE = re.compile(r"tdpipe_(\d+)_(\d+)")


def worker_resource(epoch: int, place: int) -> str:
    """Return the name of the resource that a worker's node carries once for each stage that it may host."""
    return f"tdpipe_{epoch}_{place}"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that has joined."""

    epoch: int
    place: int
    node: str
    """Ray's id of the node."""
    host: str
    port: int
    """TCP port on which the node's raylet answers."""
    cpus: float
    gpus: float


class Membership:
    """The workers at one moment.

    Args:
        nodes: nodes in the form of `ray.nodes()`.
    """

    def __init__(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        self._places: dict[int, dict[int, list[Worker]]] = {}
        for node in nodes:
            for worker in _workers(node) if node["Alive"] else ():
                places = self._places.setdefault(worker.epoch, {})
                places.setdefault(worker.place, []).append(worker)

    def workers(self, epoch: int) -> list[Worker]:
        """Return the workers of an epoch, in the order of their places."""
        places = self._places.get(epoch, {})
        return [worker for place in sorted(places) for worker in places[place]]

    def complete_epoch(self, count: int, first_epoch: int) -> int | None:
        """Return the highest epoch whose places are all there, if there is one.

        A place that two workers claim does not count until one of them has gone: a worker that was restarted may be
        there before Ray has noticed the end of the one before.

        Args:
            count: number of places.
            first_epoch: epoch from which workers count.
        """
        complete = (
            epoch
            for epoch, places in self._places.items()
            if epoch >= first_epoch and all(len(places.get(i, ())) == 1 for i in range(count))
        )
        return max(complete, default=None)

    def describe(self, count: int, first_epoch: int) -> str:
        """Say which workers of the highest epoch are there: `2 of 4 workers of epoch 3 are here`, and which are not."""
        epoch = max((each for each in self._places if each >= first_epoch), default=first_epoch)
        places = self._places.get(epoch, {})
        present = [place for place in range(count) if places.get(place)]
        text = f"{len(present)} of {count} workers of epoch {epoch} are here"
        if missing := [str(place) for place in range(count) if place not in present]:
            text += f"; without a worker: place {', '.join(missing)}"
        if twice := [str(place) for place in present if len(places[place]) > 1]:
            text += f"; claimed twice: place {', '.join(twice)}"
        return text


def _workers(node: Mapping[str, Any]) -> list[Worker]:
    resources: Mapping[str, float] = node["Resources"]
    return [
        Worker(
            int(match[1]),
            int(match[2]),
            node["NodeID"],
            node["NodeManagerAddress"],
            int(node["NodeManagerPort"]),
            resources.get("CPU", 0.0),
            resources.get("GPU", 0.0),
        )
        for name in resources
        if (match := _RESOURCE.fullmatch(name))
    ]
