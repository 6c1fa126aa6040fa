"""The engine's own figures for Prometheus: queue, KV cache, phases and stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tdpipe.controller.snapshot import EngineSnapshot
from tdpipe.core.step import Phase


class EngineCollector(Collector):
    """Takes a snapshot of the engine whenever the metrics are read."""

    def __init__(self, snapshot: Callable[[], EngineSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not need a snapshot."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All figures of one snapshot."""
        now = self._snapshot()
        yield GaugeMetricFamily(
            "tdpipe_requests_waiting", "Requests without KV cache.", now.waiting
        )
        yield GaugeMetricFamily(
            "tdpipe_requests_running", "Requests that hold KV cache.", now.running
        )
        yield GaugeMetricFamily("tdpipe_kv_blocks", "KV blocks of a stage.", now.kv_blocks)
        yield GaugeMetricFamily("tdpipe_kv_blocks_used", "KV blocks in use.", now.kv_blocks_used)
        phase = GaugeMetricFamily(
            "tdpipe_phase", "1 for the phase the pipeline is in.", labels=("phase",)
        )
        for each in Phase:
            phase.add_metric((each.value,), float(each is now.phase))
        yield phase
        yield CounterMetricFamily(
            "tdpipe_phase_switches", "Switches between prefill and decode.", now.phase_switches
        )
        yield CounterMetricFamily(
            "tdpipe_preemptions", "Sequences that lost their KV.", now.preemptions
        )
        yield _by_stage("tdpipe_stage_busy_seconds", "Seconds of computing.", now.stage_busy)
        yield _by_stage(
            "tdpipe_stage_bubble_seconds",
            "Seconds in which a stage had nothing to compute while steps were in flight.",
            now.stage_bubble,
        )


def _by_stage(name: str, text: str, seconds: tuple[float, ...]) -> Metric:
    family = CounterMetricFamily(name, text, labels=("stage",))
    for stage, value in enumerate(seconds):
        family.add_metric((str(stage),), value)
    return family
