"""The HTTP port on which a worker answers health probes.

The standard library's server is enough for two routes, and keeps the web framework out of the worker.
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Probe = Callable[[], str | None]


class ProbeServer:
    """Answers probes from `start` to `stop`.

    Args:
        host: address to listen on.
        port: TCP port to listen on; 0 takes a free one.
        probes: path of each probe → function that returns why it fails, or None.

    Raises:
        SettingsError: the port cannot be listened on.
    """

    def __init__(self, host: str, port: int, probes: Mapping[str, Probe]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _answer(self, probes, with_body=True)

            def do_HEAD(self) -> None:
                _answer(self, probes, with_body=False)

            def log_message(self, *_: object) -> None:
                """Log nothing: probes come every few seconds."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise SettingsError(
                "cluster.probe_port",
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                "set another one, or another cluster.probe_host",
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="probes", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the port. Repeated calls have no effect."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _answer(
    handler: BaseHTTPRequestHandler, probes: Mapping[str, Probe], *, with_body: bool
) -> None:
    probe = probes.get(handler.path)
    if probe is None:
        handler.send_error(HTTPStatus.NOT_FOUND, "no such probe")
        return
    reason = probe()
    name = handler.path.rpartition("/")[2]
    status = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
    answer = {"status": name} if reason is None else {"status": f"not {name}", "reason": reason}
    body = json.dumps(answer).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if with_body:
        handler.wfile.write(body)
