"""The server's metrics for Prometheus.

Requests are counted here as they end. The engine's own figures come from a snapshot that is taken whenever the metrics
are read, so that the engine does nothing for them while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tdpipe.controller.snapshot import EngineSnapshot
from tdpipe.core.step import Phase
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
            "Error responses; a request that never reached the engine is counted only here.",
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
            "Time from a request's arrival to its first output token.",
            buckets=_TTFT_BUCKETS,
            registry=registry,
        )
        self._tpot = Histogram(
            "tdpipe_time_per_output_token_seconds",
            "Mean time between a request's output tokens.",
            buckets=_TPOT_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "tdpipe_request_duration_seconds",
            "Time from a request's arrival to its end.",
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )

    def add_engine(self, snapshot: Callable[[], EngineSnapshot]) -> None:
        """Report the engine's own figures from now on; `snapshot` is called whenever metrics are read."""
        self._registry.register(_EngineCollector(snapshot))

    def count(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        self._requests.labels(record.endpoint, record.outcome).inc()
        self._prompt_tokens.inc(record.prompt_tokens)
        self._generation_tokens.inc(record.output_tokens)
        self._duration.observe(record.duration)
        if record.time_to_first_token is not None:
            self._ttft.observe(record.time_to_first_token)
        if record.time_per_output_token is not None:
            self._tpot.observe(record.time_per_output_token)

    def count_error(self, code: str) -> None:
        """Count an error response."""
        self._errors.labels(code).inc()

    def render(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and the content type of it."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _EngineCollector(Collector):
    def __init__(self, snapshot: Callable[[], EngineSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Describe nothing: a registry would otherwise take a snapshot when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all figures of one snapshot."""
        now = self._snapshot()
        yield GaugeMetricFamily(
            "tdpipe_requests_waiting", "Requests that wait for KV cache.", now.waiting
        )
        yield GaugeMetricFamily(
            "tdpipe_requests_running", "Requests that hold KV cache.", now.running
        )
        yield GaugeMetricFamily("tdpipe_kv_blocks", "KV blocks that each stage has.", now.kv_blocks)
        yield GaugeMetricFamily("tdpipe_kv_blocks_used", "KV blocks in use.", now.kv_blocks_used)
        phases = GaugeMetricFamily(
            "tdpipe_phase", "1 for the phase the pipeline is in.", labels=("phase",)
        )
        for phase in Phase:
            phases.add_metric((phase.value,), float(phase is now.phase))
        yield phases
        yield CounterMetricFamily(
            "tdpipe_phase_switches", "Switches between prefill and decode.", now.phase_switches
        )
        yield CounterMetricFamily(
            "tdpipe_preemptions",
            "Preemptions: sequences whose KV cache was freed and is computed again.",
            now.preemptions,
        )
        yield CounterMetricFamily(
            "tdpipe_restarts", "Restarts of all stages after a failure.", now.restarts
        )
        yield CounterMetricFamily(
            "tdpipe_non_finite_logits",
            "Requests that ended in an error because their logits were not finite.",
            now.non_finite_logits,
        )
        yield _by_stage(
            "tdpipe_stage_busy_seconds", "Seconds in which a stage computed.", now.stage_busy
        )
        yield _by_stage(
            "tdpipe_stage_bubble_seconds",
            "Seconds in which a stage had nothing to compute while steps were in flight.",
            now.stage_bubble,
        )


def _by_stage(name: str, description: str, seconds: tuple[float, ...]) -> Metric:
    family = CounterMetricFamily(name, description, labels=("stage",))
    for stage, value in enumerate(seconds):
        family.add_metric((str(stage),), value)
    return family
