"""The Ray cluster that hosts the stages.

It is a cluster that already runs, or else one that tdpipe starts for itself on this machine.
"""

from __future__ import annotations

import logging
import os
import socket

import ray

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


class RayCluster:
    """A connection to Ray. `leave` undoes only what `join` did."""

    def __init__(self, *, connected_here: bool, local: bool) -> None:
        self._connected_here = connected_here
        self.local = local
        """Whether tdpipe started this Ray for itself, on this machine only."""

    @classmethod
    def join(cls, cpus: int) -> RayCluster:
        """Use an initialised Ray or the one at RAY_ADDRESS, or else start one.

        Args:
            cpus: minimum number of CPUs that a Ray started here reports, even if the machine has fewer.
        """
        if ray.is_initialized():
            return cls(connected_here=False, local=False)
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
            return cls(connected_here=True, local=False)
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, cpus),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        return cls(connected_here=True, local=True)

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
        if self._connected_here:
            ray.shutdown()
            self._connected_here = False
