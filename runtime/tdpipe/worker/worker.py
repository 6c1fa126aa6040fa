"""The worker: joins the controller's Ray as the node of its place, and joins again when the controller has gone.

A worker may come up minutes before the controller. It decides nothing: which stages it hosts follows from its place.
"""

from __future__ import annotations

import logging
import shutil
import socket
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError, WorkersMissingError
from tdpipe.pipeline.cgroup import available_cpus
from tdpipe.pipeline.ray.membership import worker_resource
from tdpipe.pipeline.ray.node import NodePorts, RayNode, ray_environment, worker_options
from tdpipe.pipeline.ray.raylet_probe import raylet_answers
from tdpipe.pipeline.ray.stage_folder import VARIABLE, StageFolder
from tdpipe.pipeline.ray.temporary import make_folder
from tdpipe.worker.probes import ProbeServer

if TYPE_CHECKING:
    from pathlib import Path

    from tdpipe.core.settings import Settings

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_POLL_SECONDS = 0.2
_CHECK_SECONDS = 1.0
"""Time between two looks at whether Ray still runs."""
_CONNECT_SECONDS = 2.0


class Worker:
    """A worker that runs until `stop`.

    Args:
        settings: settings of the engine, the same on all machines except `cluster.place`.

    Raises:
        SettingsError: a setting is missing or cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._cluster = cluster = settings.cluster
        self._address, self._host, self._port = _controller_address(cluster.address)
        self._place = _place(cluster.place)
        self._stages = _stages(settings, self._place)
        self._start_timeout = settings.pipeline.start_timeout
        self._on_cpu = settings.model.device == "cpu"
        self._environment = ray_environment(cluster)
        self._stopping = threading.Event()
        self._node: RayNode | None = None
        self._joined_host: str | None = None
        """Address of this machine in the cluster while it is joined."""
        self._folder: StageFolder | None = None

    def run(self) -> None:
        """Join the controller, again and again, until `stop` is called.

        Raises:
            SettingsError: a port is in use, or the address of this machine cannot be found.
            WorkersMissingError: the controller did not answer in time.
        """
        with ExitStack() as undo:
            path = make_folder()
            undo.callback(shutil.rmtree, path, ignore_errors=True)
            self._folder = StageFolder(path)
            self._folder.print_output(self._stages, _print)
            probes = ProbeServer(
                self._cluster.probe_host,
                self._cluster.probe_port,
                {"/health/live": self.not_live, "/health/ready": self.not_ready},
            )
            undo.callback(probes.stop)
            probes.start()
            undo.callback(self._leave)
            while not self._stopping.is_set():
                self._join(path)
                self._stay()

    def stop(self) -> None:
        """Let `run` leave the cluster and return. Any thread and a signal's handler may call this."""
        self._stopping.set()

    def not_live(self) -> str | None:
        """Return why the worker should be restarted, or None."""
        host = self._joined_host
        if host is None or raylet_answers(host, NodePorts(self._cluster.first_port).node_manager):
            return None
        return "the raylet on this machine does not answer"

    def not_ready(self) -> str | None:
        """Return why the worker's stages do not serve, or None if all are loaded."""
        if self._joined_host is None or self._folder is None:
            return f"not joined to {self._address}"
        for stage in self._stages:
            state = self._folder.read(stage)
            if state is None or state.epoch != self._cluster.epoch:
                return f"stage {stage} is not started"
            if not state.loaded:
                return f"stage {stage} is loading"
        return None

    def _join(self, folder: Path) -> None:
        """Start this machine's node, and return when it has joined or `stop` was called."""
        deadline = time.monotonic() + self._start_timeout
        problem = "nobody answers there"
        reported = ""
        while not self._stopping.is_set():
            host = self._reachable_from()
            if host is not None:
                problem = self._start_node(host, folder) or ""
                if not problem:
                    return
            if problem != reported:
                _log.info("waiting for the controller at %s: %s", self._address, problem)
                reported = problem
            if time.monotonic() > deadline:
                raise WorkersMissingError(
                    f"the controller at {self._address} could not be joined within {self._start_timeout:g} s: "
                    f"{problem}; start it, check cluster.address, or raise pipeline.start_timeout"
                )
            self._stopping.wait(_RETRY_SECONDS)

    def _reachable_from(self) -> str | None:
        """Return the address of this machine towards the controller; None while the controller does not answer."""
        try:
            with socket.create_connection((self._host, self._port), _CONNECT_SECONDS) as link:
                return self._cluster.host or str(link.getsockname()[0])
        except OSError:
            return None

    def _start_node(self, host: str, folder: Path) -> str | None:
        """Start Ray's processes, and return why they have ended, or None when they have joined."""
        cpus = available_cpus()
        resources = {
            worker_resource(self._cluster.epoch, self._place): float(
                self._cluster.stages_per_worker
            )
        }
        options = worker_options(
            self._cluster,
            self._address,
            host,
            folder,
            cpus=cpus,
            gpus=0 if self._on_cpu else None,
            resources=resources,
        )
        node = self._node = RayNode(options, self._environment | {VARIABLE: str(folder)})
        port = NodePorts(self._cluster.first_port).node_manager
        while not (self._stopping.is_set() or raylet_answers(host, port)):
            if node.ended:
                return str(node.failure())
            time.sleep(_POLL_SECONDS)
        self._joined_host = host
        numbers = ", ".join(map(str, self._stages))
        _log.info(
            "joined %s from %s as place %d of epoch %d for stage %s, with %d CPUs",
            self._address,
            host,
            self._place,
            self._cluster.epoch,
            numbers,
            cpus,
        )
        return None

    def _stay(self) -> None:
        """Wait until this machine's node has ended or `stop` is called."""
        while self._node is not None and not self._stopping.wait(_CHECK_SECONDS):
            if self._node.ended:
                _log.warning("left the cluster: %s", self._node.failure())
                self._joined_host = None
                return

    def _leave(self) -> None:
        self._joined_host = None
        if self._node is not None:
            self._node.stop()


def _controller_address(address: str | None) -> tuple[str, str, int]:
    if address is None:
        raise SettingsError(
            "cluster.address",
            "a worker needs the address of the controller",
            "give one such as tdpipe-controller:6379",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(
            "cluster.address", f"{address!r} is not HOST:PORT", "give one such as 10.0.0.1:6379"
        )
    return address, host.strip("[]"), int(port)


def _place(place: int | None) -> int:
    if place is None:
        raise SettingsError(
            "cluster.place",
            "a worker needs its place among the workers",
            "give each worker another number, from 0",
        )
    return place


def _stages(settings: Settings, place: int) -> range:
    each, stages = settings.cluster.stages_per_worker, settings.pipeline.stages
    workers = -(-stages // each)
    if place >= workers:
        raise SettingsError(
            "cluster.place",
            f"{place} is not a place: {stages} stages with {each} on each worker need {workers} workers",
            f"set at most {workers - 1}, or more pipeline.stages",
        )
    return range(place * each, min((place + 1) * each, stages))


def _print(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
