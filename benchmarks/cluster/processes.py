"""The processes of a cluster on such machines: one controller, and workers of one epoch after another."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.cluster.network import Machine

COMMAND = (sys.executable, "-c", "from tdpipe.cli import main; main()")
_PORTS_OF_AN_EPOCH = 100
_EPOCHS_WITH_PORTS = 20
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class WorkerProcess:
    """A running `tdpipe worker`."""

    machine: Machine
    place: int
    epoch: int
    process: subprocess.Popen[bytes]
    log: Path
    probe_port: int


@dataclass(slots=True)
class Cluster:
    """A controller and its workers.

    Args:
        folder: folder for settings, the token and logs.
        machines: the controller's machine, and then those of workers.
        settings: section → field → value, in addition to those of a cluster of CPU stages.
    """

    folder: Path
    machines: Sequence[Machine]
    settings: dict[str, dict[str, Any]]
    workers: list[WorkerProcess] = field(default_factory=list)
    """All workers that were started and not taken away."""
    controller: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.token_file.write_text(secrets.token_hex(16))
        cluster = {"token_file": str(self.token_file)} | self.settings.pop("cluster", {})
        model = {"device": "cpu"} | self.settings.pop("model", {})
        everywhere = {"cluster": cluster, "model": model} | self.settings
        self._config.write_text(yaml.safe_dump(everywhere))

    @property
    def token_file(self) -> Path:
        """File of the secret that the machines share."""
        return self.folder / "token"

    @property
    def url(self) -> str:
        """Address of the endpoint, as its own machine reaches it."""
        return f"http://{self.machines[0].address}:8000"

    @property
    def address(self) -> str:
        """Address of the controller, as workers reach it."""
        return f"{self.machines[0].address}:6379"

    @property
    def controller_log(self) -> str:
        """What the controller has printed."""
        return (self.folder / "controller.log").read_text()

    def start_controller(self) -> subprocess.Popen[bytes]:
        """Start the controller on the first machine."""
        environment = {"TDPIPE_SERVER__HOST": "0.0.0.0"}
        self.controller = self._start(
            self.machines[0], ["controller"], self.folder / "controller.log", environment
        )
        return self.controller

    def start_worker(self, machine: Machine, place: int, epoch: int = 1) -> WorkerProcess:
        """Start a worker."""
        log = self.folder / f"worker-{epoch}-{place}.log"
        # Processes of an earlier epoch may still hold its ports on the same machine.
        offset = epoch % _EPOCHS_WITH_PORTS
        environment = {
            "TDPIPE_CLUSTER__ADDRESS": self.address,
            "TDPIPE_CLUSTER__EPOCH": str(epoch),
            "TDPIPE_CLUSTER__PLACE": str(place),
            "TDPIPE_CLUSTER__FIRST_PORT": str(6500 + _PORTS_OF_AN_EPOCH * offset),
            "TDPIPE_CLUSTER__PROBE_PORT": str(9001 + offset),
        }
        process = self._start(machine, ["worker"], log, environment)
        self.workers.append(WorkerProcess(machine, place, epoch, process, log, 9001 + offset))
        return self.workers[-1]

    def start_workers(self, machines: Sequence[Machine], epoch: int = 1) -> None:
        """Start a worker of an epoch on each of the machines, in the order of places."""
        for place, machine in enumerate(machines):
            self.start_worker(machine, place, epoch)

    def replace_workers(self, machines: Sequence[Machine]) -> int:
        """Do what an operator does when a worker is lost: take all away, start those of the next epoch, return it."""
        epoch = 1 + max(worker.epoch for worker in self.workers)
        before = list(self.workers)
        for worker in before:
            worker.process.kill()
        self.start_workers(machines, epoch)
        for worker in before:
            worker.process.wait()
            self.workers.remove(worker)
        return epoch

    def get(self, path: str) -> httpx.Response:
        """Ask the endpoint from its own machine."""
        return self.machines[0].call(lambda: httpx.get(f"{self.url}{path}"))

    def is_ready(self) -> bool:
        """Return whether the endpoint takes requests."""
        try:
            return self.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def await_ready(self, seconds: float = 240.0) -> None:
        """Wait until the endpoint takes requests.

        Raises:
            RuntimeError: the controller has ended, or it takes longer.
        """

        def ready() -> bool:
            if self.controller is None or self.controller.poll() is not None:
                raise RuntimeError(f"the controller has ended:\n{self.controller_log}")
            return self.is_ready()

        if not wait_until(ready, seconds):
            raise RuntimeError(f"the controller is not ready:\n{self.controller_log}")

    def stages(self, worker: WorkerProcess | None = None) -> list[int]:
        """Return the process ids of the stages that live, of one worker or of all."""
        owners = self.workers if worker is None else [worker]
        return [pid for owner in owners for pid in descendants(owner.process.pid) if _is_stage(pid)]

    def stop(self) -> None:
        """Kill everything."""
        processes = [worker.process for worker in self.workers]
        if self.controller is not None:
            processes.append(self.controller)
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    @property
    def _config(self) -> Path:
        return self.folder / "tdpipe.yaml"

    def _start(
        self, machine: Machine, arguments: list[str], log: Path, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        # `ip netns exec` replaces itself by the program, which so is the child that signals reach.
        with log.open("wb") as output:
            return subprocess.Popen(
                machine.command([*COMMAND, *arguments, "--config", str(self._config)]),
                env=own_environment() | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for `condition` to hold, and return whether it did within `seconds`."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    return holds


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def own_environment() -> dict[str, str]:
    """Return this process's environment without settings of tdpipe and Ray, for a command that uses this code."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TDPIPE_", "RAY_"))
    }
    return own | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def descendants(root: int) -> list[int]:
    """Return the process ids of all that process `root` started, and those that they did."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        parent = int(text.rsplit(")", 1)[1].split()[1])
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, pending = [], [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def _is_stage(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::StageActor")
    except OSError:
        return False
