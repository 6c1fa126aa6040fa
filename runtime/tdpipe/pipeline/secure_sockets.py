"""ZeroMQ sockets of one process that speak only with holders of the epoch's keys.

CURVE alone encrypts and lets every client in that knows the server's public key; the ZAP handler
here lets in the epoch's client key and no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq
from zmq.auth.thread import ThreadAuthenticator

if TYPE_CHECKING:
    from tdpipe.pipeline.epoch_keys import EpochKeys

ZAP_DOMAIN = "tdpipe"


class _OneKey:
    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 - pyzmq's signature
        return key == self._public


class SecureSockets:
    """A ZeroMQ context and its sockets, for one thread."""

    def __init__(self, keys: EpochKeys) -> None:
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None

    def bind(self, kind: int, host: str) -> tuple[zmq.Socket[bytes], str]:
        """A socket that listens on a free port of `host`, and the address to connect to."""
        if self._authenticator is None:
            self._authenticator = ThreadAuthenticator(self._context)
            self._authenticator.start()
            provider = _OneKey(self._keys.client.public)
            self._authenticator.configure_curve_callback(ZAP_DOMAIN, provider)
        socket = self._socket(kind)
        socket.curve_server = True
        socket.curve_publickey = self._keys.server.public
        socket.curve_secretkey = self._keys.server.secret
        socket.zap_domain = ZAP_DOMAIN.encode()
        # Without it a handler that is not there lets everybody in.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.bind(f"tcp://{host}:*")
        return socket, socket.get_string(zmq.LAST_ENDPOINT)

    def connect(
        self, kind: int, address: str, routing_id: bytes | None = None
    ) -> zmq.Socket[bytes]:
        """A socket connected to `address`; `routing_id` is how a ROUTER there knows it."""
        socket = self._socket(kind)
        socket.curve_serverkey = self._keys.server.public
        socket.curve_publickey = self._keys.client.public
        socket.curve_secretkey = self._keys.client.secret
        if routing_id is not None:
            socket.routing_id = routing_id
        socket.connect(address)
        return socket

    def close(self) -> None:
        """Close every socket, dropping what is unsent; idempotent."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        self._context.destroy(linger=0)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        # The scheduler bounds the steps in flight; a limit here could only drop messages or block a
        # stage.
        socket.sndhwm = 0
        socket.rcvhwm = 0
        socket.linger = 0
        return socket
