"""The address at which other machines reach this one."""

from __future__ import annotations

import socket

from tdpipe.core.errors import SettingsError

_ANYWHERE = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737). Nothing is sent there; the route to it is that to most others."""


def own_address(peer: str = _ANYWHERE) -> str:
    """Return the IPv4 address of the interface that leads to `peer`.

    Raises:
        SettingsError: no interface does.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            handle.connect((peer, 9))
            return str(handle.getsockname()[0])
    except OSError as error:
        raise SettingsError(
            "cluster.host",
            f"the address of this machine cannot be found: {error.strerror or error}",
            "set the IP address at which the other machines reach this one",
        ) from error
