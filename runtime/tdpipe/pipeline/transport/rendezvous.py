"""The rendezvous through which the stages of one attempt find each other.

The controller runs a key-value store and gives each stage all addresses that it needs, so that no stage guesses a port.
Keys in the store have the attempt as a prefix, so a late stage of an earlier start finds no other stage.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

# Documented as public, but not exported to type checkers.
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from tdpipe.core.attempt import Attempt
    from tdpipe.pipeline.transport.secure_sockets import EpochKeys

_LISTEN_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Everything that a stage needs to know to join a pipeline."""

    attempt: Attempt
    stages: int
    host: str
    """Address of the store's host."""
    port: int
    """TCP port of the store."""
    control: str
    """ZeroMQ address of the controller, which sends the steps."""
    keys: EpochKeys
    join_timeout: float
    """Seconds that connecting to the other stages may take."""
    step_timeout: float
    """Seconds that a transfer of activations may take."""

    def store(self) -> Store:
        """Connect to this attempt's part of the store."""
        timeout = timedelta(seconds=self.join_timeout)
        store = TCPStore(self.host, self.port, timeout=timeout, wait_for_workers=False)
        return PrefixStore(str(self.attempt), store)


class RendezvousStore:
    """The controller's key-value store, which listens on a free port of `host` only."""

    def __init__(self, host: str) -> None:
        with socket.create_server((host, 0), backlog=_LISTEN_BACKLOG) as listener:
            self.port = int(listener.getsockname()[1])
            self._store: TCPStore | None = TCPStore(
                host,
                self.port,
                is_master=True,
                wait_for_workers=False,
                master_listen_fd=listener.detach(),
            )

    def close(self) -> None:
        """Stop the store by dropping the only reference to it."""
        self._store = None
