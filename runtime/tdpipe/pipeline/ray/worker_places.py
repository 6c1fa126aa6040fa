"""The places of stages on workers, which join by themselves and are replaced by whoever manages them.

The highest epoch whose workers are all there counts. Workers of earlier epochs are never used, even if they still live.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import ray

from tdpipe.core.attempt import Attempt
from tdpipe.core.errors import SettingsError, WorkersChangedError, WorkersMissingError
from tdpipe.pipeline.ray.membership import Membership, worker_resource
from tdpipe.pipeline.ray.places import Places
from tdpipe.pipeline.ray.raylet_probe import raylet_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack
    from typing import Literal

    from tdpipe.core.errors import TDPipeError
    from tdpipe.core.settings import ClusterSettings
    from tdpipe.pipeline.ray.cluster import RayCluster
    from tdpipe.pipeline.ray.deadline import Deadline
    from tdpipe.pipeline.ray.membership import Worker
    from tdpipe.pipeline.ray.node import RayNode

_POLL_SECONDS = 0.5
_CHECK_SECONDS = 2.0
"""Time between two looks at the workers of a running pipeline."""
_RESERVATION_SECONDS = 60.0
"""Time in which the stages of the attempt before must have freed their resources."""


class WorkerPlaces:
    """A `PlaceFinder` over the workers that join this controller's Ray.

    Args:
        settings: settings of the cluster.
        stages: number of stages.
        device: device of every stage.
        threads: number of CPU threads of each stage. None divides a worker's CPUs by its stages.
        cluster: connection to Ray.
        head: Ray's processes on this machine.
        undo: stack of callbacks that end the connection and the head.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        stages: int,
        device: Literal["cpu", "cuda"],
        threads: int | None,
        cluster: RayCluster,
        head: RayNode,
        undo: ExitStack,
    ) -> None:
        self._cluster = cluster
        self._head = head
        self._undo = undo
        self._stages = stages
        self._per_worker = settings.stages_per_worker
        self._count = -(-stages // settings.stages_per_worker)
        self._device = device
        self._threads = threads
        self._attempt = Attempt(settings.epoch, 0)
        self._nodes: frozenset[str] = frozenset()
        self._checked = 0.0

    def find(self, deadline: Deadline, progress: Callable[[str], None], _undo: ExitStack) -> Places:
        workers = self._await_workers(deadline, progress)
        epoch = workers[0].epoch
        self._nodes = frozenset(worker.node for worker in workers)
        self._checked = 0.0
        self._attempt = self._attempt.next(epoch)
        hosts = ", ".join(worker.host for worker in workers)
        progress(f"attempt {self._attempt}: stages compute on {self._device} at {hosts}")
        cuda = self._device == "cuda"
        if cuda:
            self._check_gpus(workers)
        own = {"GPU": 1.0} if cuda else {}
        return Places(
            self._attempt,
            self._cluster,
            self._device,
            tuple(
                own | {worker_resource(epoch, stage // self._per_worker): 1.0}
                for stage in range(self._stages)
            ),
            None if cuda else self._threads or self._share_of_cpus(workers),
            deadline.after(_RESERVATION_SECONDS),
        )

    def replaced(self, attempt: Attempt) -> TDPipeError | None:
        now = time.monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return None
        self._checked = now
        membership = Membership(ray.nodes())
        latest = membership.complete_epoch(self._count, attempt.epoch)
        if latest is not None and latest > attempt.epoch:
            return WorkersChangedError(
                f"the workers of epoch {latest} replace those of epoch {attempt.epoch}"
            )
        if not self._nodes <= {worker.node for worker in membership.workers(attempt.epoch)}:
            return WorkersChangedError(f"a worker of epoch {attempt.epoch} has left")
        return None

    def failure(self) -> TDPipeError | None:
        return self._head.failure() if self._head.ended else None

    def close(self) -> None:
        self._undo.close()

    def _await_workers(
        self, deadline: Deadline, progress: Callable[[str], None]
    ) -> Sequence[Worker]:
        """Wait for all workers of an epoch, and return them in the order of their places."""
        reported, seconds = "", deadline.left()
        while True:
            if (failure := self.failure()) is not None:
                raise failure
            membership = Membership(ray.nodes())
            first_epoch = self._attempt.epoch
            epoch = membership.complete_epoch(self._count, first_epoch)
            state = membership.describe(self._count, first_epoch)
            if epoch is not None:
                workers = membership.workers(epoch)[: self._count]
                # Ray takes some seconds to notice that a machine is silent.
                silent = [each.host for each in workers if not raylet_answers(each.host, each.port)]
                if not silent:
                    return workers
                state = f"no answer from the worker at {', '.join(silent)}"
            if state != reported:
                progress(f"waiting for workers: {state}")
                reported = state
            if not deadline.left():
                raise WorkersMissingError(
                    f"{state} after {seconds:.0f} s; start the missing workers with the same cluster.epoch, or raise "
                    "pipeline.start_timeout"
                )
            time.sleep(_POLL_SECONDS)

    def _stages_of(self, worker: Worker) -> int:
        return min(self._per_worker, self._stages - worker.place * self._per_worker)

    def _share_of_cpus(self, workers: Sequence[Worker]) -> int:
        # Stages of a pipeline wait for the slowest one, so none gets more threads than another.
        return max(1, int(min(each.cpus // self._stages_of(each) for each in workers)))

    def _check_gpus(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            if worker.gpus < self._stages_of(worker):
                raise SettingsError(
                    "model.device",
                    f"cuda needs a GPU for each of {self._stages_of(worker)} stages at place {worker.place}, and the "
                    f"worker at {worker.host} has {worker.gpus:g}",
                    "give it more, set fewer cluster.stages_per_worker, or set it to cpu",
                )
