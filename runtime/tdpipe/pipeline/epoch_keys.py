"""Who may speak on a pipeline's sockets.

Steps decide what runs, so a peer has to prove itself: each start of a pipeline (an epoch) issues
    two CURVE key pairs, one for the sides that bind and one for those that connect. Ray carries
    them to the actors; they never touch a disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import zmq


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, both Z85."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def issue(cls) -> KeyPair:
        return cls(*zmq.curve_keypair())


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """All keys of an epoch."""

    server: KeyPair
    """Of the sockets that bind."""
    client: KeyPair
    """Of the sockets that connect; the only client key that servers let in."""

    @classmethod
    def issue(cls) -> EpochKeys:
        return cls(KeyPair.issue(), KeyPair.issue())
