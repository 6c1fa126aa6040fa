"""The host of stages on workers: starts Ray's head on the controller's machine and connects to it."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tdpipe.core.errors import PipelineError, SettingsError
from tdpipe.pipeline.addresses import own_address
from tdpipe.pipeline.ray.node import NodePorts, RayNode, head_options, ray_environment
from tdpipe.pipeline.ray.raylet_probe import raylet_answers
from tdpipe.pipeline.ray.temporary import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages
    from tdpipe.pipeline.ray.host import RayHost

_START_SECONDS = 60.0
_POLL_SECONDS = 0.1


def check_controller(settings: Settings) -> None:
    """Refuse settings with which a controller cannot host stages on workers.

    Raises:
        SettingsError: a setting is missing or has no effect.
    """
    ray_environment(settings.cluster)
    if settings.model.device == "auto":
        raise SettingsError(
            "model.device",
            "auto would depend on which workers have joined first",
            "set cpu or cuda",
        )
    if settings.pipeline.host != "ray":
        raise SettingsError("pipeline.host", "must be ray for stages on workers", "remove it")
    for field in ("address", "place"):
        if getattr(settings.cluster, field) is not None:
            raise SettingsError(f"cluster.{field}", "is a setting of workers", "remove it here")
    if address := os.environ.get("RAY_ADDRESS"):
        problem = f"{address} names another Ray, but a controller starts its own"
        raise SettingsError("RAY_ADDRESS", problem, "unset it")


def start_controller_host(
    settings: Settings, stages: CheckpointStages, progress: Callable[[str], None]
) -> RayHost:
    """Start Ray's head and return a host that waits for workers. The calling thread must outlive it.

    Args:
        settings: settings of the engine, which `check_controller` has accepted.
        stages: plan of the stages.
        progress: function that receives one line of text for each step of the start.

    Raises:
        SettingsError: a setting cannot be used.
        PipelineError: Ray does not start.
    """
    cluster = settings.cluster
    host = cluster.host or own_address()
    environment = ray_environment(cluster)
    # Ray reads its variables when it is imported, in this process as well.
    os.environ.update(environment)
    from tdpipe.pipeline.ray.cluster import RayCluster
    from tdpipe.pipeline.ray.host import RayHost
    from tdpipe.pipeline.ray.worker_places import WorkerPlaces

    with ExitStack() as undo:
        folder = make_folder()
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        progress(f"starting Ray's head at {host}:{cluster.ray_port}")
        head = RayNode(head_options(cluster, host, folder), environment)
        undo.callback(head.stop)
        _await_answer(head, host, NodePorts(cluster.first_port).node_manager)
        connection = RayCluster.connect(f"{host}:{cluster.ray_port}", host, _START_SECONDS)
        undo.callback(connection.leave)
        device = settings.model.device
        assert device != "auto"
        places = WorkerPlaces(
            cluster,
            stages.stages,
            device,
            settings.pipeline.threads_per_stage,
            connection,
            head,
            undo.pop_all(),
        )
    return RayHost(settings.pipeline, stages, places)


def _await_answer(head: RayNode, host: str, port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while not raylet_answers(host, port):
        if head.ended:
            raise head.failure()
        if time.monotonic() > end:
            raise PipelineError(f"Ray's head did not start within {_START_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)
