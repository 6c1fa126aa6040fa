"""The Ray cluster that hosts the stages.

It is a cluster that already runs, or else one that tdpipe starts for itself on this machine. Ray's own errors are long
and its waits are unbounded, so what can be checked is checked before Ray is asked.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import ray

from tdpipe.core.errors import PipelineError, SettingsError, one_line
from tdpipe.pipeline.ray.temporary import make_folder

if TYPE_CHECKING:
    from pathlib import Path

_LOCAL_HOST = "127.0.0.1"
_LOOPBACK = "lo"
_OBJECT_STORE_BYTES = 100 * 2**20
"""Size of the object store: about the minimum that Ray accepts, because no data travels through it."""
_LOCAL_ENVIRONMENT = {
    # By default Ray lowers the priority of its workers, with which a step was measured to take three times as long.
    "RAY_worker_niceness": "0",
    # The engine sends no usage statistics without the user's consent.
    "RAY_USAGE_STATS_ENABLED": "0",
}
_ADDRESS = "RAY_ADDRESS"
_START_A_RAY = "start one with `ray start --head`, or unset RAY_ADDRESS to let tdpipe start its own"
_ANSWER_SECONDS = 5.0
"""Seconds that the Ray at RAY_ADDRESS may take to accept a connection."""
_LEAVE_SECONDS = 5.0
_START_SECONDS = 10.0
"""Time that a Ray may take to start and stop again when a signal comes while it starts."""


class RayCluster:
    """A connection to Ray. `leave` undoes only what `join` did.

    Args:
        connection: the connection that was made here; None where Ray was initialised before.
        folder: folder of the files of a Ray that tdpipe started for itself, on this machine only.
    """

    def __init__(self, connection: _Connection | None = None, folder: Path | None = None) -> None:
        self._connection = connection
        self._folder = folder

    @classmethod
    def join(cls, cpus: int, timeout: float) -> RayCluster:
        """Use an initialised Ray or the one at RAY_ADDRESS, or else start one.

        Args:
            cpus: minimum number of CPUs that a Ray started here reports, even if the machine has fewer.
            timeout: seconds that Ray may take.

        Raises:
            SettingsError: an environment variable cannot be used.
            PipelineError: Ray did not start, or nobody answers at RAY_ADDRESS.
        """
        if ray.is_initialized():
            return cls()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        address = os.environ.get(_ADDRESS, "")
        if address not in ("", "local"):
            _check_address(address, min(timeout, _ANSWER_SECONDS))
            return cls(_Connection(options, timeout, f"{_ADDRESS}={address}: ", _START_A_RAY))
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options |= {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, cpus),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
        folder = make_folder()
        try:
            remedy = "free memory or raise pipeline.start_timeout"
            return cls(
                _Connection(options | {"_temp_dir": str(folder)}, timeout, "", remedy), folder
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def connect(cls, address: str, host: str, timeout: float) -> RayCluster:
        """Connect to the head at `address`, which runs on this machine.

        Args:
            address: address of the head.
            host: IP address of this machine in the cluster.
            timeout: seconds that Ray may take.

        Raises:
            PipelineError: Ray does not answer.
        """
        options = {
            "address": address,
            "_node_ip_address": host,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
        return cls(_Connection(options, timeout, f"{address}: ", "see the log of Ray's head"))

    @property
    def local(self) -> bool:
        """Whether tdpipe started this Ray for itself, on this machine only."""
        return self._folder is not None

    @property
    def host(self) -> str:
        """Address at which the stages reach this process."""
        return _LOCAL_HOST if self.local else str(ray.util.get_node_ip_address())

    @property
    def interface(self) -> str | None:
        """Network interface that reaches all stages, or None if they may be on other machines."""
        names = {name for _, name in socket.if_nameindex()}
        return _LOOPBACK if self.local and _LOOPBACK in names else None

    @property
    def gpus(self) -> int:
        return int(ray.cluster_resources().get("GPU", 0))

    def leave(self) -> None:
        """Disconnect, and stop a Ray that was started here. Repeated calls have no effect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Connection:
    """A connection that is made, and ended, in a thread of its own.

    Connecting may hang, and Ray notices no signal meanwhile, so the caller only waits for it. The thread lives as long
    as the connection, because the processes of a Ray that was started end with the thread that started them.

    Raises:
        PipelineError: Ray refuses, or takes longer than `timeout` seconds.
    """

    def __init__(self, options: dict[str, Any], timeout: float, where: str, remedy: str) -> None:
        self._options = options
        self._error: Exception | None = None
        self._settled = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()
        try:
            settled = self._settled.wait(timeout)
        except BaseException:  # a signal
            # Ray cannot be interrupted while it starts, and would leave processes behind if nobody waited for it.
            self._closing.set()
            self._thread.join(_START_SECONDS)
            raise
        if not settled:
            self._closing.set()
            raise PipelineError(f"{where}Ray did not answer within {timeout:g} s; {remedy}")
        if self._error is not None:
            raise PipelineError(f"{where}Ray did not start: {one_line(self._error)}; {remedy}")

    def close(self) -> None:
        """Disconnect, within some seconds."""
        self._closing.set()
        self._thread.join(_LEAVE_SECONDS)
        if self._thread.is_alive():
            # Ray has gone before, and what it waits for will not come; so it must not wait at the process's end, too.
            atexit.unregister(ray.shutdown)

    def _run(self) -> None:
        try:
            ray.init(**self._options)
        except Exception as error:  # Ray raises whatever its parts do
            self._error = error
            return
        finally:
            self._settled.set()
        self._closing.wait()
        ray.shutdown()


def _check_address(address: str, timeout: float) -> None:
    """Refuse an address that Ray would wait for in vain.

    Raises:
        SettingsError: the address is not one of a cluster's head.
        PipelineError: nobody listens there.
    """
    if address == "auto":
        return
    if "://" in address:
        problem = f"{address} is the address of a Ray client server, through which stages cannot be reached"
        raise SettingsError(_ADDRESS, problem, "give the head's own address, such as 10.0.0.1:6379")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(
            _ADDRESS, f"{address!r} is no address", "give one such as 10.0.0.1:6379"
        )
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
        except OSError as error:
            if time.monotonic() > end:
                reason = error.strerror or str(error)
                raise PipelineError(
                    f"{_ADDRESS}={address}: nobody answers there ({reason.lower()}); {_START_A_RAY}"
                ) from error
            time.sleep(0.2)
        else:
            return
