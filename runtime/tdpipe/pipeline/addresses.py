"""The IPv4 addresses of this machine, and the network interfaces that have them.

gloo and NCCL guess an interface if none is named, and on machines with several networks, or in containers whose
host name resolves to another address, they guess wrong and connect to nobody.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANYWHERE = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737). Nothing is sent there; the route to it is that to most others."""
_SIOCGIFADDR = 0x8915
"""Number of the Linux request for an interface's IPv4 address (netdevice(7))."""
_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def own_address() -> str:
    """Return the address of the interface with the default route, or else of the only one that leads elsewhere.

    Raises:
        SettingsError: there is neither.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            handle.connect((_ANYWHERE, 9))
            return str(handle.getsockname()[0])
    except OSError as error:
        others = [address for _, address in _interfaces() if not address.startswith("127.")]
        if len(others) == 1:
            return others[0]
        raise SettingsError(
            "cluster.host",
            f"the address of this machine cannot be found: there is no default route, and {len(others)} interfaces",
            "set the IP address at which the other machines reach this one",
        ) from error


def name_interface(address: str) -> None:
    """Let gloo and NCCL use the interface that has `address`, unless the environment names another one."""
    for interface, its_address in _interfaces():
        if its_address == address:
            for variable in _VARIABLES:
                os.environ.setdefault(variable, interface)


def _interfaces() -> Iterator[tuple[str, str]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(handle.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an IPv4 address
                continue
            yield name, socket.inet_ntoa(answer[20:24])
