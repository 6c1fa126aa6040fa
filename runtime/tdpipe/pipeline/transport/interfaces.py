"""The network interface that activations travel over.

gloo and NCCL guess one if they are not told, and on machines with several networks, or in containers whose host name
resolves to another address, they guess wrong and connect to nobody.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_SIOCGIFADDR = 0x8915
"""Number of the Linux request for an interface's IPv4 address (netdevice(7))."""
_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def name_interface(address: str) -> None:
    """Let gloo and NCCL use the interface that has `address`, unless the environment names another one."""
    if interface := _interface_of(address):
        for variable in _VARIABLES:
            os.environ.setdefault(variable, interface)


def _interface_of(address: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(handle.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
