"""Ray's processes on a machine of a cluster: the head next to the controller, or the node of a worker.

`ray start --block` runs them and ends with them. It is a child of this process and dies with it, so that nothing of a
killed controller or worker is left to hold GPUs or to serve.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.errors import PipelineError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tdpipe.core.settings import ClusterSettings

_OBJECT_STORE_BYTES = 100 * 2**20
"""Size of the object store: about the minimum that Ray accepts, because no data travels through it."""
_RECONNECT_SECONDS = 10
_STOP_SECONDS = 8.0
_KEPT_LINES = 20
_PR_SET_PDEATHSIG = 1
"""Number of the prctl(2) operation that sends a signal to this process when its parent dies."""
_WORKER_PORTS_FROM = 10
_LAST_PORT = 99


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The ports of a machine, counted from `cluster.first_port`."""

    first: int

    @property
    def node_manager(self) -> int:
        """Port on which the raylet answers."""
        return self.first

    def options(self) -> list[str]:
        """Return the options of `ray start` that fix the ports."""
        names = (
            "node-manager-port",
            "object-manager-port",
            "runtime-env-agent-port",
            "dashboard-agent-grpc-port",
            "dashboard-agent-listen-port",
            "metrics-export-port",
        )
        options = [f"--{name}={self.first + number}" for number, name in enumerate(names)]
        return [
            *options,
            f"--min-worker-port={self.first + _WORKER_PORTS_FROM}",
            f"--max-worker-port={self.first + _LAST_PORT}",
        ]


def ray_environment(settings: ClusterSettings) -> dict[str, str]:
    """Return the variables that Ray's processes, and the programs that connect to them, run with.

    Raises:
        SettingsError: there is no secret that the machines share.
    """
    token_file = settings.token_file
    if token_file is None:
        raise SettingsError(
            "cluster.token_file",
            "is needed, because whoever can reach Ray's ports without a secret can run any program",
            "give a file with the same random text on every machine, such as from `openssl rand -hex 32`",
        )
    try:
        empty = not token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{token_file} cannot be read: {error}"
        raise SettingsError("cluster.token_file", problem, "give a file of text") from error
    if empty:
        raise SettingsError("cluster.token_file", f"{token_file} is empty", "write a secret to it")
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file.resolve()),
        "RAY_USAGE_STATS_ENABLED": "0",
        # By default Ray lowers the priority of its workers, with which a step was measured to take three times as long.
        "RAY_worker_niceness": "0",
        # A machine that falls silent is given up after 3 checks, in less than 10 s; so is a head that has gone.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(_RECONNECT_SECONDS),
        # The rest saves work of idle nodes, whose state nobody asks for.
        "RAY_enable_metrics_collection": "0",
        "RAY_memory_monitor_refresh_ms": "1000",
        "RAY_raylet_report_resources_period_milliseconds": "1000",
        "RAY_raylet_report_loads_period_milliseconds": "1000",
        "RAY_gcs_pull_resource_loads_period_milliseconds": "10000",
        "RAY_kill_idle_workers_interval_ms": "1000",
        "RAY_task_events_report_interval_ms": "0",
        "RAY_debug_dump_period_milliseconds": "0",
        "RAY_event_stats": "0",
    }


def head_options(settings: ClusterSettings, host: str, folder: Path) -> list[str]:
    """Return the options of `ray start` for the head, which takes no work itself."""
    return [
        "--head",
        f"--port={settings.ray_port}",
        "--num-cpus=0",
        "--num-gpus=0",
        "--include-dashboard=false",
        "--no-monitor",
        *_common_options(settings, host, folder),
    ]


def worker_options(
    settings: ClusterSettings,
    address: str,
    host: str,
    folder: Path,
    *,
    cpus: int,
    gpus: int | None,
    resources: Mapping[str, float],
) -> list[str]:
    """Return the options of `ray start` for a worker's node; `gpus` of None lets Ray count them."""
    return [
        f"--address={address}",
        f"--num-cpus={cpus}",
        *([] if gpus is None else [f"--num-gpus={gpus}"]),
        f"--resources={json.dumps(dict(resources))}",
        *_common_options(settings, host, folder),
    ]


def _common_options(settings: ClusterSettings, host: str, folder: Path) -> list[str]:
    return [
        f"--node-ip-address={host}",
        *NodePorts(settings.first_port).options(),
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        f"--temp-dir={folder}",
        "--include-log-monitor=false",
        "--disable-usage-stats",
        "--log-style=record",
        "--log-color=false",
        "--block",
    ]


class RayNode:
    """Running processes of Ray. The thread that creates it must live as long as they do.

    Args:
        options: options of `ray start`, with `--block`.
        environment: variables in addition to this process's own.
    """

    def __init__(self, options: list[str], environment: Mapping[str, str]) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        # A session of its own keeps a terminal's Ctrl-C from ending Ray before the stages have.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        threading.Thread(target=self._read, name="ray-output", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether the processes have ended."""
        return self._process.poll() is not None

    def failure(self) -> PipelineError:
        """Describe the end of the processes by the last line that they printed."""
        status = self._process.poll()
        last = next((line for line in reversed(self._lines) if line), "it printed nothing")
        return PipelineError(f"Ray ended with status {status}: {last}")

    def stop(self) -> None:
        """Stop the processes within seconds. Repeated calls have no effect."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.strip())


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
