"""`tdpipe serve` as a person starts it: the demo model on two Ray stages of this machine's CPU.

Each server is a process group of its own and starts a Ray of its own, whatever Ray the tests use, so
that its whole tree of processes can be looked at, signalled and seen to be gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.endpoint import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
COMMAND = (sys.executable, "-c", "from tdpipe.cli import main; main()", "serve")
START_SECONDS = 180
END_SECONDS = 60
_POLL_SECONDS = 0.2
_OWN_VARIABLES = ("TDPIPE_", "RAY_")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from a later one that has the same number."""

    pid: int
    started: int
    """The kernel's clock ticks from boot to its start."""
    command: str = field(compare=False)

    def lives(self) -> bool:
        """Whether it has not ended; a zombie has."""
        stat = _stat(self.pid)
        return stat is not None and stat.state != "Z" and stat.started == self.started


def descendants(root: int) -> set[Process]:
    """The living processes that process `root` started, and those that they did."""
    pids = [
        int(directory.name) for directory in Path("/proc").iterdir() if directory.name.isdigit()
    ]
    stats = {pid: stat for pid in pids if (stat := _stat(pid)) is not None and stat.state != "Z"}
    family = {root}
    while more := {pid for pid, stat in stats.items() if stat.parent in family} - family:
        family |= more
    return {
        Process(pid, stats[pid].started, _command_line(pid))
        for pid in family - {root}
        if pid in stats
    }


class ServedDemo:
    """A running server.

    Args:
        process: the command.
        port: where it listens.
        errors: the file that its stderr goes to.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, errors: IO[bytes]) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._errors = errors
        self._seen: set[Process] = set()

    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return os.pread(self._errors.fileno(), 2**24, 0).decode()

    def descendants(self) -> set[Process]:
        """The processes that it has started and that still run."""
        found = descendants(self.process.pid)
        self._seen |= found
        return found

    def left_behind(self) -> set[Process]:
        """Those of its processes that are still there when it has ended, after some time to end."""
        wait_until(lambda: not any(each.lives() for each in self._seen), END_SECONDS)
        return {each for each in self._seen if each.lives()}

    def metrics(self) -> dict[str, float]:
        """Value of each metric, by name; those with labels as `name{value}`."""
        text = httpx.get(f"{self.url}/metrics").text
        return {
            sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def signal(self, number: signal.Signals) -> int:
        """Send a signal as it really comes and return the exit status.

        Ctrl-C reaches every process of the terminal's foreground group, SIGTERM only the one that
        was started.
        """
        self.descendants()
        if number is signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(END_SECONDS)

    def await_ready(self) -> None:
        """Wait until requests are answered."""

        def ready() -> bool:
            assert self.process.poll() is None, self.stderr()
            try:
                return httpx.get(f"{self.url}/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        assert wait_until(ready, START_SECONDS), self.stderr()
        self.descendants()

    def await_restart(self) -> None:
        """Wait until the stages have been restarted and requests are answered."""
        assert wait_until(lambda: "goes on with" in self.stderr(), START_SECONDS), self.stderr()
        self.await_ready()

    def await_end(self) -> int:
        """Wait until it ends by itself and return the exit status."""

        def ended() -> bool:
            self.descendants()
            return self.process.poll() is not None

        assert wait_until(ended, START_SECONDS), self.stderr()
        return self.process.wait()

    def kill(self) -> None:
        """Make sure that nothing of it runs any more."""
        if self.process.poll() is None:
            self.descendants()
            self.process.kill()
            self.process.wait()
        for each in self._seen:
            if each.lives():
                os.kill(each.pid, signal.SIGKILL)


@contextmanager
def started_demo(**environment: str) -> Iterator[ServedDemo]:
    """Start to serve on a free port; whatever is left of it at the end of the block is killed.

    Args:
        environment: settings, such as TDPIPE_CACHE__BLOCKS="64".
    """
    port = free_port()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*COMMAND, "--port", str(port), "--stages", "2", "--device", "cpu"],
            env=own_environment() | environment,
            stderr=errors,
            start_new_session=True,
        )
        server = ServedDemo(process, port, errors)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def served_demo(**environment: str) -> Iterator[ServedDemo]:
    """Serve until the end of the block, where SIGTERM must leave nothing behind.

    Args:
        environment: settings, such as TDPIPE_CACHE__BLOCKS="64".
    """
    with started_demo(**environment) as server:
        server.await_ready()
        yield server
        if server.process.poll() is None:
            assert server.signal(signal.SIGTERM) == 0, server.stderr()
        assert server.left_behind() == set()


def question(first: int, last: int) -> str:
    """A question that the demo model understands."""
    return f"Count from {first} to {last}."


def answer(first: int, last: int) -> str:
    """Its one right answer."""
    return " ".join(str(number) for number in range(first, last + 1))


def body(path: str, prompt: str) -> dict[str, Any]:
    """The greedy request at `path` for the model's whole answer to `prompt`."""
    chat = {"messages": [{"role": "user", "content": prompt}]}
    text = {"prompt": f"{prompt}\n", "max_tokens": 200}
    return {"model": "demo", "temperature": 0} | (chat if path == CHAT else text)


async def events(http: httpx.AsyncClient, asked: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """The events of a streamed answer to the chat `asked`."""
    async with http.stream("POST", CHAT, json=asked | {"stream": True}) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def own_environment() -> dict[str, str]:
    """This process' environment without any setting of tdpipe or Ray."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)
    }
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for `condition` to hold; False if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    return holds


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rsplit(")", 1)[1].split()
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""
