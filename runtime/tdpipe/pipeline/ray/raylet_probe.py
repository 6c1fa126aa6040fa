"""The check whether a raylet answers, which needs neither Ray nor a secret.

A raylet is a gRPC server. It greets whoever speaks HTTP/2 with its settings, before any authentication, and it does so
in its own event loop: a stopped or dead process does not, although the kernel may still accept connections for it.
"""

from __future__ import annotations

import socket

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_HEADER_BYTES = 9
_FRAME_TYPE = slice(3, 4)
_SETTINGS = b"\4"
"""Type of the first frame that an HTTP/2 server sends (RFC 9113, section 3.4)."""


def raylet_answers(host: str, port: int, timeout: float = 2.0) -> bool:
    """Return whether the raylet that listens on `port` of `host` answers within `timeout` seconds."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(_PREFACE + _EMPTY_SETTINGS)
            header = b""
            while len(header) < _HEADER_BYTES:
                received = connection.recv(_HEADER_BYTES - len(header))
                if not received:
                    return False
                header += received
    except OSError:
        return False
    return header[_FRAME_TYPE] == _SETTINGS
