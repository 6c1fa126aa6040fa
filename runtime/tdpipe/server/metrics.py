"""Requests as the server sees them, for Prometheus, beside the engine's own figures."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from tdpipe.controller.snapshot import EngineSnapshot
from tdpipe.server.engine_metrics import EngineCollector
from tdpipe.server.request_record import RequestRecord

_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
_TPOT_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "tdpipe_requests",
            "Requests that ended, one per prompt; outcomes are stop, length, aborted and error.",
            ("endpoint", "outcome"),
            registry=registry,
        )
        self._errors = Counter(
            "tdpipe_error_responses",
            "Error responses; a request that the engine never saw is counted only here.",
            ("code",),
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "tdpipe_prompt_tokens", "Prompt tokens of ended requests.", registry=registry
        )
        self._generation_tokens = Counter(
            "tdpipe_generation_tokens", "Output tokens of ended requests.", registry=registry
        )
        self._ttft = Histogram(
            "tdpipe_time_to_first_token_seconds",
            "From a request's arrival to its first output token.",
            buckets=_TTFT_BUCKETS,
            registry=registry,
        )
        self._tpot = Histogram(
            "tdpipe_time_per_output_token_seconds",
            "Mean gap between a request's output tokens.",
            buckets=_TPOT_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "tdpipe_request_duration_seconds",
            "From a request's arrival to its end.",
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )

    def watch(self, snapshot: Callable[[], EngineSnapshot]) -> None:
        """Report the engine's own figures from now on, taken whenever the metrics are read."""
        self._registry.register(EngineCollector(snapshot))

    def count(self, record: RequestRecord) -> None:
        """Take in a request that has its outcome."""
        self._requests.labels(record.endpoint, record.outcome).inc()
        self._prompt_tokens.inc(record.prompt_tokens)
        self._generation_tokens.inc(record.output_tokens)
        self._duration.observe(record.duration)
        if record.time_to_first_token is not None:
            self._ttft.observe(record.time_to_first_token)
        if record.time_per_output_token is not None:
            self._tpot.observe(record.time_per_output_token)

    def count_error(self, code: str) -> None:
        """Take in an error response."""
        self._errors.labels(code).inc()

    def render(self) -> tuple[bytes, str]:
        """(all metrics in Prometheus' text format, its content type)."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
