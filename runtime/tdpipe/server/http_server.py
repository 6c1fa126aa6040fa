"""Runs uvicorn in a thread, on a socket that is bound before the model is loaded.

The main thread stays free for signals and for starting the engine, while health probes are already answered.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

from tdpipe.core.errors import SettingsError
from tdpipe.core.settings import ServerSettings
from tdpipe.server.timed_http import TimedHttpProtocol

_DRAIN_SECONDS = 3
_JOIN_SECONDS = 6.0
_BACKLOG = 2048


def listen(settings: ServerSettings) -> socket.socket:
    """Bind and listen.

    Raises:
        SettingsError: the address is in use, does not exist, or may not be used.
    """
    host, port = settings.host, settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # An unspecified IPv6 address is meant as every address, as other servers take it.
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual
        )
    except socket.gaierror as error:
        raise SettingsError(
            "server.host", f"no such address: {host}", "pass another --host"
        ) from error
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(
                "server.host", f"{host} is not an address of this machine", "pass another --host"
            ) from error
        raise SettingsError(
            "server.port", f"cannot listen on {host}:{port}: {reason}", "pass another --port"
        ) from error


class HttpServer:
    """Serves `app` on `listener` between `start` and `stop`."""

    def __init__(self, app: FastAPI, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=TimedHttpProtocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        self._listener = listener
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self.ended = threading.Event()
        """Set when the server has stopped, whether by `stop` or because it failed."""

    def start(self) -> None:
        """Start the thread, and return once requests are answered."""
        self._thread.start()
        while not self._server.started and not self.ended.is_set():
            time.sleep(0.01)

    def stop(self) -> None:
        """Give running responses a few seconds to end, and close the socket. Idempotent."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SECONDS)
        self._listener.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self.ended.set()
