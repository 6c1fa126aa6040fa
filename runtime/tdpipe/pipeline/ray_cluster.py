"""The Ray that hosts the stages: one that is there, or one of our own on this machine."""

from __future__ import annotations

import logging
import os
import socket

import ray

LOCAL_HOST = "127.0.0.1"
LOOPBACK = "lo"
OBJECT_STORE_BYTES = 100 * 2**20
"""Nothing travels through the object store; this is about the least that Ray accepts."""
LOCAL_ENVIRONMENT = {
    # By default Ray's workers yield to everybody: a stage then took three times as long per step.
    "RAY_worker_niceness": "0",
    # No engine reports to anybody behind its owner's back.
    "RAY_USAGE_STATS_ENABLED": "0",
}


class RayCluster:
    """A connection to Ray; `leave` undoes what `join` did and no more."""

    def __init__(self, *, connected_here: bool, local: bool) -> None:
        self._connected_here = connected_here
        self.local = local
        """Whether it is ours alone and all on this machine."""

    @classmethod
    def join(cls, cpus: int) -> RayCluster:
        """Use an initialised Ray or the one at RAY_ADDRESS, else start one.

        Args:
            cpus: that a Ray started here shall count at least, however many the machine has.
        """
        if ray.is_initialized():
            return cls(connected_here=False, local=False)
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
            return cls(connected_here=True, local=False)
        for name, value in LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, cpus),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        return cls(connected_here=True, local=True)

    @property
    def host(self) -> str:
        """Address of this process for the stages."""
        return LOCAL_HOST if self.local else str(ray.util.get_node_ip_address())

    @property
    def interface(self) -> str | None:
        """Network interface that suffices for the stages; None where they may be anywhere."""
        names = {name for _, name in socket.if_nameindex()}
        return LOOPBACK if self.local and LOOPBACK in names else None

    @property
    def gpus(self) -> int:
        return int(ray.cluster_resources().get("GPU", 0))

    def leave(self) -> None:
        """Disconnect, and stop the Ray that was started here; idempotent."""
        if self._connected_here:
            ray.shutdown()
            self._connected_here = False
