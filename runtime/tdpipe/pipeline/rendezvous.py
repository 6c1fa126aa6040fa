"""Where the stages of one epoch meet.

The controller listens with a key-value store and issues everything a stage needs to find the
others; no stage guesses a port. Keys in the store carry the epoch, so a stage of an earlier start
that comes late meets nobody.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

# Documented as public, but not exported to type checkers.
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from tdpipe.pipeline.epoch_keys import EpochKeys

LISTEN_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """What a stage must know to join."""

    epoch: str
    """Tells one start of the pipeline from every other."""
    stages: int
    host: str
    """Address of the store."""
    port: int
    control: str
    """ZeroMQ address that steps come from."""
    keys: EpochKeys
    join_timeout: float
    """Seconds that meeting the others may take."""
    step_timeout: float
    """Seconds that passing activations may take."""

    def store(self) -> Store:
        """A connection to the epoch's part of the store."""
        timeout = timedelta(seconds=self.join_timeout)
        store = TCPStore(self.host, self.port, timeout=timeout, wait_for_workers=False)
        return PrefixStore(self.epoch, store)


class RendezvousStore:
    """The store itself, in the controller. Listens on `host` alone, on a free port."""

    def __init__(self, host: str) -> None:
        with socket.create_server((host, 0), backlog=LISTEN_BACKLOG) as listener:
            self.port = int(listener.getsockname()[1])
            self._store: TCPStore | None = TCPStore(
                host,
                self.port,
                is_master=True,
                wait_for_workers=False,
                master_listen_fd=listener.detach(),
            )

    def close(self) -> None:
        """Stop listening; the store lives as long as this reference."""
        self._store = None
