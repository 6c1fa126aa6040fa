"""What endpoints answer from, through a server's life: starting, ready, failed, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tdpipe.core.errors import one_line
from tdpipe.server.engine_port import EnginePort
from tdpipe.server.errors import ApiError
from tdpipe.server.metrics import Metrics
from tdpipe.server.request_record import RequestRecord
from tdpipe.server.served_model import ServedModel

T = TypeVar("T")
_TOKENIZING_THREADS = 2


@dataclass(frozen=True, slots=True)
class Service:
    """A model and the engine that runs it."""

    engine: EnginePort
    model: ServedModel


class Serving:
    """The state that all endpoints share.

    Written by the thread that starts and stops the engine, read by the event loop.
    """

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._service: Service | None = None
        self._reason = "starting"
        # Tokenizing a long prompt takes tens of milliseconds, in which the event loop has tokens to
        # deliver.
        self._tokenizing = ThreadPoolExecutor(_TOKENIZING_THREADS, "tokenizing")

    def progress(self, message: str) -> None:
        """What the start is doing now: the reason why the server is not ready yet."""
        self._reason = f"starting: {message}"

    def ready(self, service: Service) -> None:
        """Requests can be answered from now on."""
        self.metrics.add_engine(service.engine.snapshot)
        self._service = service

    def stop(self) -> None:
        """Refuse requests from now on."""
        self._service, self._reason = None, "stopping"
        self._tokenizing.shutdown(wait=False)

    def unready_reason(self) -> str | None:
        """Why requests are refused; None while they are answered."""
        service = self._service
        if service is None:
            return self._reason
        health = service.engine.health()
        if health.ready:
            return None
        return (
            f"the engine failed: {one_line(health.error)}"
            if health.error
            else "the engine is not ready"
        )

    def service(self) -> Service:
        """The model and engine to answer with.

        Raises:
            ApiError: 503 while there is none that works.
        """
        service, reason = self._service, self.unready_reason()
        if service is None or reason is not None:
            raise ApiError(503, f"not ready: {reason}", code="not_ready")
        return service

    def service_for(self, model: str) -> Service:
        """The service, if it serves the model of this name.

        Raises:
            ApiError: 404 for any other name, 503 while there is no working service.
        """
        service = self.service()
        if model != service.model.name:
            raise ApiError(
                404,
                f"model {model!r} does not exist; served is {service.model.name!r}",
                param="model",
                code="model_not_found",
            )
        return service

    async def tokenize(self, work: Callable[[], T]) -> T:
        """The result of `work`, done beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def request_ended(self, record: RequestRecord) -> None:
        """Count and log a request."""
        self.metrics.count(record)
        record.log()
