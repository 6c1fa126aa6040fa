"""The start of stages as Ray actors.

Ray places the processes and passes them the addresses and keys that they need to connect. If a step of the start fails,
everything that was started so far is stopped before the error is raised.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError

from tdpipe.core.errors import PipelineError, StageMemoryError, TDPipeError, one_line
from tdpipe.pipeline.ray.actor import StageActor
from tdpipe.pipeline.ray.deadline import Deadline
from tdpipe.pipeline.ray.placement import Placement
from tdpipe.pipeline.ray.places import FreePlaces
from tdpipe.pipeline.ray.stages import RayStages
from tdpipe.pipeline.stage_group import StagePipeline
from tdpipe.pipeline.transport.control_socket import ControlServer
from tdpipe.pipeline.transport.rendezvous import Rendezvous, RendezvousStore
from tdpipe.pipeline.transport.secure_sockets import EpochKeys, SecureSockets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from ray import ObjectRef
    from ray.actor import ActorHandle

    from tdpipe.core.settings import PipelineSettings
    from tdpipe.pipeline.ray.actor import LoadResult
    from tdpipe.pipeline.ray.places import PlaceFinder, Places
    from tdpipe.pipeline.stage_builder import StageBuilder

T = TypeVar("T")

_UNDO_SECONDS = 5.0
_MALLOC_VARIABLES = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""Variables that make glibc keep the memory of a step's activations for the next step. Without them, a prefill step of
512 tokens through 8 layers of size 512 was measured to have 3 to 13 thousand page faults, 2 to 6% of its time."""


def start_on_ray(
    settings: PipelineSettings,
    builder: StageBuilder,
    device: Literal["auto", "cpu", "cuda"],
    progress: Callable[[str], None],
) -> StagePipeline:
    """Place, load and connect all stages on free places, and start their loops.

    Args:
        settings: threads per stage, network interface and timeouts.
        builder: builder of the stages, which loads each in its actor.
        device: device of every stage. `choose_device` decides what auto is.
        progress: function that receives one line of text for each step of the start.

    Raises:
        PipelineError: a stage could not be placed, loaded or connected within `pipeline.start_timeout`.
    """
    places = FreePlaces(builder.stages, settings.threads, device)
    return RayHost(settings, builder, places).start(progress)


class RayHost:
    """A `PipelineHost` of Ray actors.

    Args:
        settings: network interface and timeouts.
        builder: builder of the stages, which loads each in its actor.
        places: finds the places of the stages.
    """

    def __init__(
        self, settings: PipelineSettings, builder: StageBuilder, places: PlaceFinder
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._places = places
        self._cancelled = threading.Event()
        self.restartable = True

    def start(self, progress: Callable[[str], None]) -> StagePipeline:
        deadline = Deadline(self._settings.start_timeout, self._cancelled)
        with ExitStack() as undo:
            places = self._places.find(deadline, progress, undo)
            start = _RayStart(self._settings, self._builder, places, deadline, progress, undo)
            try:
                return start.run(lambda: self._places.replaced(places.attempt))
            except PipelineError as error:
                changed = self._places.replaced(places.attempt)
                if changed is not None:
                    raise changed from error
                raise

    def cancel(self) -> None:
        self._cancelled.set()

    def failure(self) -> TDPipeError | None:
        return self._places.failure()

    def close(self) -> None:
        self._places.close()


class _RayStart:
    """One start. It registers with `undo` how to stop everything that it starts."""

    def __init__(
        self,
        settings: PipelineSettings,
        builder: StageBuilder,
        places: Places,
        deadline: Deadline,
        progress: Callable[[str], None],
        undo: ExitStack,
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._places = places
        self._deadline = deadline
        self._progress = progress
        self._undo = undo
        self._cluster = places.cluster

    def run(self, replaced: Callable[[], TDPipeError | None]) -> StagePipeline:
        self._progress(f"placing {self._builder.stages} stages")
        placement = Placement(self._places.resources, self._places.reservation)
        self._undo_in_cluster(placement.remove)
        actors = self._create(placement)
        loaded = self._load(actors, placement.sharing())
        blocks = min(stage.fitting_blocks for stage in loaded)
        capacity = self._builder.capacity(blocks)
        control = self._connect(actors, blocks)
        group = RayStages(control, actors, replaced, self._undo.pop_all())
        devices = tuple(stage.device for stage in loaded)
        attempt, timeout = self._places.attempt, self._settings.step_timeout
        return StagePipeline(group, attempt, devices, capacity, timeout)

    def _create(self, placement: Placement) -> list[ActorHandle]:
        threads = self._places.threads
        environment: dict[str, str] = {}
        if threads is not None:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            environment |= _MALLOC_VARIABLES
        if interface := self._settings.network_interface or self._cluster.interface:
            environment |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface)
        actor_class = ray.remote(StageActor)
        actors: list[ActorHandle] = []
        # All are killed together, since a call about a machine that has gone takes its time.
        self._undo_in_cluster(lambda: [ray.kill(actor) for actor in actors])
        for stage in range(self._builder.stages):
            options = placement.options(stage) | {"runtime_env": {"env_vars": environment}}
            actors.append(
                actor_class.options(**options).remote(stage, self._places.attempt, threads)
            )
        return actors

    def _undo_in_cluster(self, callback: Callable[[], object]) -> None:
        """Register what has to be undone in a cluster that stays.

        A Ray of tdpipe's own takes all with it, and may be gone already, when each such call would wait for a minute.
        """
        if not self._cluster.local:
            self._undo.callback(_run_within, _UNDO_SECONDS, callback)

    def _load(self, actors: Sequence[ActorHandle], sharing: Sequence[int]) -> list[LoadResult]:
        count, finished = len(actors), 0
        self._progress(f"loading the weights of {count} stages")
        started, deadline = time.monotonic(), self._deadline.after(self._settings.load_timeout)

        def report(stage: int, loaded: LoadResult) -> None:
            nonlocal finished
            finished += 1
            self._progress(
                f"stage {stage}: {loaded.name} loaded in {loaded.seconds:.1f} s ({finished} of {count} stages)"
            )

        loads = [
            actor.load.remote(self._builder, self._places.device, stages)
            for actor, stages in zip(actors, sharing, strict=True)
        ]
        results = _results(loads, "load", deadline, report, "pipeline.load_timeout")
        self._deadline.extend(time.monotonic() - started)
        return results

    def _connect(self, actors: Sequence[ActorHandle], blocks: int) -> ControlServer:
        self._progress(f"connecting {len(actors)} stages with {blocks} KV blocks each")
        host = self._cluster.host
        keys = EpochKeys.generate()
        sockets = SecureSockets(keys)
        self._undo.callback(sockets.close)
        control = ControlServer(sockets, host, len(actors))
        self._undo.callback(control.close)
        store = RendezvousStore(host)
        self._undo.callback(store.close)
        rendezvous = Rendezvous(
            attempt=self._places.attempt,
            stages=len(actors),
            host=host,
            port=store.port,
            control=control.address,
            keys=keys,
            join_timeout=max(1.0, self._deadline.left()),
            step_timeout=self._settings.step_timeout,
        )
        listen = host if self._cluster.local else None
        connects = [actor.connect.remote(rendezvous, listen, blocks) for actor in actors]
        _results(connects, "connect", self._deadline)
        if missing := control.await_stages(self._deadline.left()):
            raise _timeout_error(missing, "connect", "pipeline.start_timeout")
        return control


def _run_within(seconds: float, callback: Callable[[], object]) -> None:
    """Run `callback`, but go on after `seconds`: Ray's calls wait for a minute when the cluster has gone."""
    thread = threading.Thread(target=callback, daemon=True)
    thread.start()
    thread.join(seconds)


def _results(
    calls: Sequence[ObjectRef[T | TDPipeError]],
    action: str,
    deadline: Deadline,
    on_result: Callable[[int, T], None] | None = None,
    setting: str = "pipeline.start_timeout",
) -> list[T]:
    """Wait for the results of a call to every stage, in the order of stages, and raise the first failure."""
    stage_of = {call: stage for stage, call in enumerate(calls)}
    results: dict[int, T] = {}
    while stage_of:
        done, _ = ray.wait(list(stage_of), timeout=deadline.slice())
        if not done:
            if deadline.left():
                continue
            raise _timeout_error(sorted(stage_of.values()), action, setting)
        stage = stage_of.pop(done[0])
        try:
            result = ray.get(done[0])
        except OutOfMemoryError as error:
            raise StageMemoryError(
                f"stage {stage} could not {action} because its machine ran out of memory; use more stages, "
                "or give the stage more memory"
            ).in_stage(stage) from error
        except RayError as error:
            raise PipelineError(f"stage {stage} could not {action}: {one_line(error)}").in_stage(
                stage
            ) from error
        if isinstance(result, TDPipeError):
            raise result
        results[stage] = result
        if on_result is not None:
            on_result(stage, result)
    return [results[stage] for stage in range(len(calls))]


def _timeout_error(stages: Sequence[int], action: str, setting: str) -> PipelineError:
    numbers = ", ".join(map(str, stages))
    return PipelineError(
        f"stage {numbers} did not {action} in time; if the host is only slow, raise {setting}"
    )
