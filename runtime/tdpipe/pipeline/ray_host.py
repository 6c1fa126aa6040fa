"""Starting stages as Ray actors.

Ray places the processes and carries what they need to meet; whatever goes wrong on the way,
everything started so far is taken down again before the error is raised.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import ray
from ray.exceptions import RayError

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StageFailure
from tdpipe.pipeline.actor import StageActor
from tdpipe.pipeline.control_socket import ControlServer
from tdpipe.pipeline.deadline import Deadline
from tdpipe.pipeline.epoch_keys import EpochKeys
from tdpipe.pipeline.placement import Placement
from tdpipe.pipeline.ray_cluster import RayCluster
from tdpipe.pipeline.ray_stages import RayStages
from tdpipe.pipeline.rendezvous import Rendezvous, RendezvousStore
from tdpipe.pipeline.secure_sockets import SecureSockets
from tdpipe.pipeline.stage_group import StagePipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from ray import ObjectRef
    from ray.actor import ActorHandle

    from tdpipe.core.settings import PipelineSettings
    from tdpipe.pipeline.actor import StageOffer
    from tdpipe.pipeline.stage_builder import StageBuilder

T = TypeVar("T")

LOCAL_PLACEMENT_SECONDS = 10.0


def start_on_ray(
    settings: PipelineSettings,
    builder: StageBuilder,
    device: Literal["auto", "cpu", "cuda"],
    progress: Callable[[str], None],
) -> StagePipeline:
    """Place, load and connect all stages, and start their loops.

    Args:
        settings: threads, interface and timeouts.
        builder: makes a stage in its actor.
        device: of every stage; auto is cuda where the cluster has GPUs.
        progress: told what is going on, line by line.

    Raises:
        PipelineError: a stage could not be placed, loaded or connected, or not within
            `pipeline.start_timeout`.
    """
    deadline = Deadline(settings.start_timeout)
    stages = builder.stages
    with ExitStack() as undo:
        progress("joining Ray")
        cluster = RayCluster.join(stages * settings.threads_per_stage + 1)
        undo.callback(cluster.leave)
        cuda = device == "cuda" or (device == "auto" and cluster.gpus > 0)
        progress(f"placing {stages} stages")
        actors = _place(settings, cluster, stages, cuda, deadline, undo)
        loads = [actor.load.remote(builder, "cuda" if cuda else "cpu") for actor in actors]

        def tell_loaded(stage: int, offer: StageOffer) -> None:
            progress(f"stage {stage}: {offer.name} loaded in {offer.seconds:.1f} s")

        offers = _results(loads, "load", deadline, tell_loaded)
        blocks = min(offer.fitting_blocks for offer in offers)
        capacity = builder.capacity(blocks)

        progress(f"connecting {stages} stages with {blocks} KV blocks each")
        keys = EpochKeys.issue()
        sockets = SecureSockets(keys)
        undo.callback(sockets.close)
        control = ControlServer(sockets, cluster.host, stages)
        undo.callback(control.close)
        store = RendezvousStore(cluster.host)
        undo.callback(store.close)
        rendezvous = Rendezvous(
            epoch=uuid.uuid4().hex,
            stages=stages,
            host=cluster.host,
            port=store.port,
            control=control.address,
            keys=keys,
            join_timeout=max(1.0, deadline.left()),
            step_timeout=settings.step_timeout,
        )
        listen = cluster.host if cluster.local else None
        connects = [actor.connect.remote(rendezvous, listen, blocks) for actor in actors]
        _results(connects, "connect", deadline)
        if missing := control.await_stages(deadline.left()):
            raise _late(missing, "connect")
        group = RayStages(control, actors, undo.pop_all())
    return StagePipeline(group, stages, capacity, settings.step_timeout)


def _place(
    settings: PipelineSettings,
    cluster: RayCluster,
    stages: int,
    cuda: bool,
    deadline: Deadline,
    undo: ExitStack,
) -> list[ActorHandle]:
    threads = settings.threads_per_stage
    resources = {"GPU": 1.0} if cuda else {"CPU": float(threads)}
    # What a Ray of this machine alone lacks now will not come.
    timeout = min(LOCAL_PLACEMENT_SECONDS, deadline.left()) if cluster.local else deadline.left()
    placement = Placement(stages, resources, timeout)
    undo.callback(placement.remove)
    environment: dict[str, str] = {}
    if not cuda:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if interface := settings.network_interface or cluster.interface:
        environment |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface)
    actor_class = ray.remote(StageActor)
    actors = []
    for stage in range(stages):
        options = placement.options(stage) | {"runtime_env": {"env_vars": environment}}
        actor = actor_class.options(**options).remote(stage, None if cuda else threads)
        undo.callback(ray.kill, actor)
        actors.append(actor)
    return actors


def _results(
    calls: Sequence[ObjectRef[T | StageFailure]],
    doing: str,
    deadline: Deadline,
    on_result: Callable[[int, T], None] | None = None,
) -> list[T]:
    """The results of a call to every stage, by stage; the first that fails is the error."""
    stage_of = {call: stage for stage, call in enumerate(calls)}
    results: dict[int, T] = {}
    while stage_of:
        done, _ = ray.wait(list(stage_of), timeout=deadline.left())
        if not done:
            raise _late(sorted(stage_of.values()), doing)
        stage = stage_of.pop(done[0])
        try:
            result = ray.get(done[0])
        except RayError as error:
            raise PipelineError(f"stage {stage} could not {doing}: {error}") from error
        if isinstance(result, StageFailure):
            raise PipelineError(f"stage {stage} could not {doing}: {result.traceback}")
        results[stage] = result
        if on_result is not None:
            on_result(stage, result)
    return [results[stage] for stage in range(len(calls))]


def _late(stages: Sequence[int], doing: str) -> PipelineError:
    numbers = ", ".join(map(str, stages))
    return PipelineError(
        f"stage {numbers} did not {doing} in time; if its host is only slow, raise "
        "pipeline.start_timeout"
    )
