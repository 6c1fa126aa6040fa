"""Picture of a run: when each stage computed which step, and how full the KV cache was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tdpipe.core.step import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from tdpipe.simulation.record import SimulationRecord
    from tdpipe.simulation.stage_timeline import StageTimeline

_COLOURS = {Phase.PREFILL: "#d95f02", Phase.DECODE: "#1b9e77", Phase.MIXED: "#7570b3"}
_MAX_SHOWN_STEPS = 60
"""Number of steps that the timeline shows; more steps would be too narrow to see."""


def draw_run(path: Path, title: str, record: SimulationRecord, timeline: StageTimeline) -> None:
    """Draw a run and write the picture to a file.

    Args:
        path: The file; its suffix selects the format.
        title: The title above the picture.
        record: The record of the run.
        timeline: The timeline of the run, with its intervals kept.
    """
    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    rows = figure.subplots(2, 1)
    _draw_stages(rows[0], timeline)
    _draw_kv(rows[1], record)
    figure.savefig(path, dpi=120)


def _draw_stages(axes: Axes, timeline: StageTimeline) -> None:
    middle = len(timeline.intervals) // 2
    shown = timeline.intervals[
        max(0, middle - _MAX_SHOWN_STEPS // 2) : middle + _MAX_SHOWN_STEPS // 2
    ]
    stages = len(shown[0].begins)
    for stage in range(stages):
        for phase, colour in _COLOURS.items():
            bars = [
                (each.begins[stage], each.ends[stage] - each.begins[stage])
                for each in shown
                if each.phase is phase
            ]
            axes.broken_barh(
                bars, (stage - 0.4, 0.8), color=colour, edgecolor="white", linewidth=0.3
            )
    axes.set_yticks(range(stages), [f"stage {stage}" for stage in range(stages)])
    axes.invert_yaxis()
    axes.set_xlabel(
        f"seconds; {len(shown)} micro-batches from the middle of the run, gaps are bubbles"
    )
    handles = [Patch(color=colour, label=phase.value) for phase, colour in _COLOURS.items()]
    axes.legend(handles=handles, loc="upper right")


def _draw_kv(axes: Axes, record: SimulationRecord) -> None:
    times = [sample.time for sample in record.kv]
    axes.plot(times, [sample.used for sample in record.kv], label="used", linewidth=0.8)
    forecasts = [
        (sample.time, sample.forecast_peak)
        for sample in record.kv
        if sample.forecast_peak is not None
    ]
    axes.plot(
        [time for time, _ in forecasts],
        [blocks for _, blocks in forecasts],
        label="forecast peak of the running requests",
        linewidth=0.8,
    )
    axes.axhline(record.kv_blocks, color="black", linewidth=0.8, linestyle="--", label="capacity")
    axes.set_xlabel("seconds")
    axes.set_ylabel("KV blocks")
    axes.legend(loc="upper right")
