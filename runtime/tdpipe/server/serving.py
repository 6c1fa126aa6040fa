"""The state that endpoints answer from: the server is starting, ready, recovering, draining or stopping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from starlette.types import Receive

from tdpipe.core.errors import ShutdownError, one_line
from tdpipe.server.disconnect import unless_disconnected
from tdpipe.server.engine_port import EnginePort
from tdpipe.server.errors import ApiError
from tdpipe.server.metrics import Metrics
from tdpipe.server.request_record import RequestRecord
from tdpipe.server.served_model import ServedModel

T = TypeVar("T")
_RECOVERY_RETRY_SECONDS = 5
_SHORT_TEXT = 2**15
"""Characters of a text that is tokenized in about ten milliseconds."""


@dataclass(frozen=True, slots=True)
class Service:
    """A model and the engine that runs it."""

    engine: EnginePort
    model: ServedModel


class Serving:
    """State that all endpoints share.

    The thread that starts and stops the engine writes it, and the event loop reads it.
    """

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._service: Service | None = None
        self._reason = "starting"
        self._draining = False
        self._refusing = False
        self.calls = 0
        """Number of generation requests whose response is not complete."""
        self._short_texts = ThreadPoolExecutor(1, "tokenizing-short")
        self._long_texts = ThreadPoolExecutor(1, "tokenizing-long")

    def count_call(self, change: int) -> None:
        """Count a call that begins (1) or ends (-1). Only the event loop may call this."""
        self.calls += change

    def progress(self, message: str) -> None:
        """Set the step of the start, which probes get as the reason why the server is not ready."""
        self._reason = f"starting: {message}"

    def ready(self, service: Service) -> None:
        """Answer requests from now on."""
        self.metrics.add_engine(service.engine.snapshot)
        self._service = service

    def drain(self) -> None:
        """Tell probes that the server is about to stop, and still answer requests."""
        self._draining = True

    def refuse(self) -> None:
        """Refuse new requests from now on; those in work go on."""
        self._draining = self._refusing = True

    def stop(self) -> None:
        """Refuse all requests from now on."""
        self.refuse()
        self._service, self._reason = None, "stopping"
        self._short_texts.shutdown(wait=False)
        self._long_texts.shutdown(wait=False)

    def unready_reason(self) -> str | None:
        """Return why no requests should be sent here; None while they are answered."""
        service = self._service
        if service is None:
            return self._reason
        if self._draining:
            return "draining"
        health = service.engine.health()
        if health.ready:
            return None
        if health.error is not None:
            return f"the engine failed: {one_line(health.error)}"
        return health.reason

    def dead_reason(self) -> str | None:
        """Return why the process should be restarted; None while it works."""
        service = self._service
        if service is None or service.engine.health().alive:
            return None
        return "the engine's loop stands still"

    def service(self) -> Service:
        """Return the model and engine to answer with.

        Raises:
            ApiError: 503 while the server is not ready.
            ShutdownError: the server takes no more requests.
        """
        if self._refusing:
            raise ShutdownError(
                "the server is shutting down; send the request to another one, or again later"
            )
        service = self._service
        if service is None:
            raise ApiError(503, f"not ready: {self._reason}", code="not_ready")
        health = service.engine.health()
        if health.error is not None:
            raise ApiError(
                503, f"not ready: the engine failed: {one_line(health.error)}", code="not_ready"
            )
        if not health.ready:
            raise ApiError(
                503,
                f"not ready: {health.reason}",
                code="recovering",
                retry_after=_RECOVERY_RETRY_SECONDS,
            )
        return service

    def service_for(self, model: str) -> Service:
        """Return the service if it serves the model with this name.

        Raises:
            ApiError: 404 for any other name, 503 while the server is not ready.
        """
        service = self.service()
        if model != service.model.name:
            raise ApiError(
                404,
                f"model {model!r} does not exist; the served model is {service.model.name!r}",
                param="model",
                code="model_not_found",
            )
        return service

    async def tokenize(
        self, receive: Receive, characters: int, work: Callable[[Callable[[], bool]], T]
    ) -> T:
        """Do `work` off the event loop, so that tokens are delivered and probes answered meanwhile.

        Args:
            receive: the request's, to notice that its client has gone.
            characters: the size of the text, by which short prompts pass long ones.
            work: given a function that tells whether nobody waits for the result any more.

        Raises:
            ClientGoneError: the client disconnected first.
        """
        pool = self._short_texts if characters <= _SHORT_TEXT else self._long_texts
        gone = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await unless_disconnected(receive, loop.run_in_executor(pool, work, gone.is_set))
        finally:
            gone.set()

    def request_ended(self, record: RequestRecord) -> None:
        """Count and log a request that has ended."""
        self.metrics.count(record)
        record.log()
