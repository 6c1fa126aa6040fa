"""Machines that are network namespaces, connected by a switch that is one, too. It needs root and iproute2."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
"""Number of the kind of namespace that setns(2) enters."""
_NAMESPACES = Path("/run/netns")


def why_impossible() -> str | None:
    """Return why namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    name = f"tdpipe-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces cannot be made: {tried.stderr.strip()}"
    _ip("netns", "del", name)
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """A network namespace with one interface, eth0."""

    name: str
    address: str
    switch: str
    port: str
    """Name of the interface's other end, which is in the switch."""

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs a program on this machine."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def unplug(self) -> None:
        """Cut the machine off without a word to the others, as a pulled plug does."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def plug_in(self) -> None:
        """Undo `unplug`."""
        _ip("-n", self.switch, "link", "set", self.port, "up")

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread whose sockets are those of this machine, and return its result."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                self._enter()
                results.append(function())
            except BaseException as error:  # raised again in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def _enter(self) -> None:
        handle = os.open(_NAMESPACES / self.name, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns failed")
        finally:
            os.close(handle)


@contextmanager
def connected_machines(count: int) -> Iterator[list[Machine]]:
    """Make machines that reach each other and nothing else, until the end of the block."""
    prefix = f"tdpipe-{os.getpid()}"
    switch = f"{prefix}-switch"
    machines = [
        Machine(f"{prefix}-{number}", f"10.77.0.{number + 1}", switch, f"port{number}")
        for number in range(count)
    ]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for machine in machines:
            _connect(machine)
        yield machines
    finally:
        for name in (switch, *(machine.name for machine in machines)):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _connect(machine: Machine) -> None:
    name, switch, port = machine.name, machine.switch, machine.port
    _ip("netns", "add", name)
    link = ("link", "add", port, "netns", switch, "type", "veth")
    _ip(*link, "peer", "name", "eth0", "netns", name)
    _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
    _ip("-n", name, "addr", "add", f"{machine.address}/24", "dev", "eth0")
    for interface in ("eth0", "lo"):
        _ip("-n", name, "link", "set", interface, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
