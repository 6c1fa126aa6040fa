"""How long decode and prefill steps of the large model take, and how much of the device they use.

A decode step reads all weights and its rows' KV cache, so its share of the measured bandwidth says how near it is to
the shortest possible time. A prefill step multiplies, so its share of the measured rate says so.
"""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import TYPE_CHECKING

from benchmarks.gpu_check.kernel_time import kernel_seconds
from benchmarks.gpu_check.large_model import large_settings
from benchmarks.gpu_check.part import Finding, PartSkippedError
from tdpipe.controller.synthetic_steps import Rows, SyntheticSteps
from tdpipe.pipeline.start import start_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.gpu_check.context import CheckContext

_MIN_REPEATS = 3
_MAX_REPEATS = 50


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one kind of step."""

    stream: float
    """Time from one result to the next, with one step more in flight than there are stages."""
    alone: float
    """Time from submitting a step to its result, with nothing else in flight."""
    busy: float
    """Time that all stages report for a step alone; launching kernels counts, waiting for messages does not."""
    device: float
    """Time of a step's kernels and copies according to the profiler; `busy` where there is no profiler."""
    profiled: bool
    """Whether `device` comes from the profiler."""

    @property
    def host(self) -> float:
        """Time of a step alone in which the device has nothing to do."""
        return max(self.alone - self.device, 0.0)

    @property
    def text(self) -> str:
        """Text of the times for the table."""
        source = "" if self.profiled else " (by the stages' clocks)"
        return (
            f"{self.stream * 1e3:.2f} ms a step; alone {self.alone * 1e3:.2f} ms, "
            f"of which device{source} {self.device * 1e3:.2f} and host {self.host * 1e3:.2f}"
        )


def measure_decode(context: CheckContext, rows: int) -> Finding:
    """Measure decode steps of `rows` rows over a context.

    Raises:
        PartSkippedError: the large model is not loaded, or the rows do not fit its KV cache.
        TDPipeError: the pipeline does not start, or fails.
    """
    scale, sizes = context.scale, context.model.description.sizes
    with _steps(context) as steps:
        length = scale.context + 1
        row_blocks = -(-length // steps.capacity.block_size)
        if rows * row_blocks > steps.capacity.blocks:
            room = steps.capacity.kv_tokens
            raise PartSkippedError(
                f"{rows} rows of {length} tokens do not fit {room} tokens of KV cache"
            )
        together = max(1, scale.prefill // scale.context)
        for first in range(0, rows, together):
            slots = range(first, min(first + together, rows))
            block = first * row_blocks
            steps.run(steps.prefill(slots, scale.context, first_block=block, max_length=length))
        took = _measure(context, steps, Rows(range(rows), scale.context, 1))
    if rows == max(scale.batches):
        context.output_seconds = took.stream / rows
    itemsize = context.model.kept[0].dtype.itemsize
    weights = sizes.layers * sizes.layer_weights + sizes.head_weights
    size = itemsize * weights + rows * length * sizes.kv_bytes(itemsize)
    text = f"{rows / took.stream:.0f} tokens/s; {took.text}"
    return _finding(took, text, "bandwidth", size, context.bandwidth)


def measure_prefill(context: CheckContext) -> Finding:
    """Measure steps that prefill one prompt of the scale's length.

    Raises:
        PartSkippedError: the large model is not loaded.
        TDPipeError: the pipeline does not start, or fails.
    """
    sizes, tokens = context.model.description.sizes, context.scale.prefill
    with _steps(context) as steps:
        took = _measure(context, steps, steps.prefill(range(1), tokens))
    context.prompt_seconds = took.stream / tokens
    # The head sees one row, and attention within a prompt of this length adds a few per cent.
    flops = 2 * tokens * sizes.layers * sizes.layer_weights
    text = f"{tokens / took.stream:.0f} tokens/s; {took.text}"
    return _finding(took, text, "rate", flops, context.rate)


@contextmanager
def _steps(context: CheckContext) -> Iterator[SyntheticSteps]:
    pipeline = start_pipeline(large_settings(context), context.model, lambda _: None)
    try:
        yield SyntheticSteps(pipeline)
    finally:
        pipeline.close()


def _measure(context: CheckContext, steps: SyntheticSteps, rows: Rows) -> StepTime:
    steps.run(rows)
    first = steps.run(rows)
    seconds = max(first.done - first.submitted, 1e-6)
    count = int(context.scale.step_seconds / 2 / seconds)
    count = min(max(count, _MIN_REPEATS), _MAX_REPEATS)
    executed = [steps.run(rows) for _ in range(count)]
    alone = statistics.median(each.done - each.submitted for each in executed)
    busy = statistics.median(sum(each.busy) for each in executed)
    began = time.monotonic()
    streamed = list(steps.stream(repeat((rows,), count), ahead=context.stages + 1))
    stream = (streamed[-1].done - began) / count
    device = kernel_seconds(lambda: steps.run(rows), context.device)
    return StepTime(stream, alone, busy, busy if device is None else device, device is not None)


def _finding(took: StepTime, text: str, name: str, work: int, maximum: float | None) -> Finding:
    """Relate the work to what the device can do, over whole steps and over the device's own time."""
    figures: dict[str, object] = {**asdict(took), "host": took.host, "work": work}
    if maximum is None:
        return Finding(f"{text}; shares unknown, as the {name} was not measured", figures)
    shares = [work / seconds / maximum for seconds in (took.stream, took.device)]
    figures |= {f"share_of_{name}": shares[0], f"device_share_of_{name}": shares[1]}
    return Finding(
        f"{shares[0]:.1%} of the {name}, {shares[1]:.1%} while the device computes; {text}", figures
    )
