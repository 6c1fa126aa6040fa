"""ZeroMQ sockets that only holders of the epoch's keys can connect to.

Steps decide what runs, so peers authenticate: each start of a pipeline (an epoch) generates two CURVE key pairs, which
Ray carries to the actors and which are never written to disk. CURVE alone admits every client that knows the server's
public key. The ZAP handler of this module admits the epoch's client key only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import zmq
from zmq.auth.thread import ThreadAuthenticator

HEARTBEAT_INTERVAL_MS = 1000
HEARTBEAT_TIMEOUT_MS = 4000
"""Time without any sign of the peer after which its connection counts as lost: its machine or process stands still."""
_ZAP_DOMAIN = "tdpipe"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, both keys in Z85 encoding."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> KeyPair:
        return cls(*zmq.curve_keypair())


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """All keys of an epoch."""

    server: KeyPair
    """Key pair of the sockets that bind."""
    client: KeyPair
    """Key pair of the sockets that connect. Its public key is the only one that servers admit."""

    @classmethod
    def generate(cls) -> EpochKeys:
        return cls(KeyPair.generate(), KeyPair.generate())


class _ClientKey:
    """The credentials provider that pyzmq's authenticator asks about a client's key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, _domain: str, key: bytes) -> bool:
        return key == self._public


class SecureSockets:
    """A ZeroMQ context and its sockets, which only one thread may use."""

    def __init__(self, keys: EpochKeys) -> None:
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None

    def bind(self, kind: int, host: str) -> tuple[zmq.Socket[bytes], str]:
        """Open a socket that listens on a free port of `host`.

        Returns:
            The socket and the address to connect to.
        """
        if self._authenticator is None:
            self._authenticator = ThreadAuthenticator(self._context)
            self._authenticator.start()
            provider = _ClientKey(self._keys.client.public)
            self._authenticator.configure_curve_callback(_ZAP_DOMAIN, provider)
        socket = self._socket(kind)
        socket.curve_server = True
        socket.curve_publickey = self._keys.server.public
        socket.curve_secretkey = self._keys.server.secret
        socket.zap_domain = _ZAP_DOMAIN.encode()
        # Without this option, ZeroMQ admits every client if the handler is missing.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.bind(f"tcp://{host}:*")
        return socket, socket.get_string(zmq.LAST_ENDPOINT)

    def connect(
        self, kind: int, address: str, routing_id: bytes | None = None
    ) -> zmq.Socket[bytes]:
        """Open a socket that connects to `address`, where a ROUTER knows it by `routing_id`."""
        socket = self._socket(kind)
        socket.curve_serverkey = self._keys.server.public
        socket.curve_publickey = self._keys.client.public
        socket.curve_secretkey = self._keys.client.secret
        if routing_id is not None:
            socket.routing_id = routing_id
        socket.connect(address)
        return socket

    def close(self) -> None:
        """Close all sockets and drop unsent messages. Repeated calls have no effect."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        self._context.destroy(linger=0)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        # The scheduler bounds the steps in flight. A limit here would only drop messages or block a stage.
        socket.sndhwm = 0
        socket.rcvhwm = 0
        socket.linger = 0
        # ZeroMQ's own threads exchange heartbeats, so a stage that computes for long still answers.
        socket.heartbeat_ivl = HEARTBEAT_INTERVAL_MS
        socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
        return socket
