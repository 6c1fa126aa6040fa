"""Output tokens per second of tdpipe's policies and of transformers' continuous batching on the same requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.gpu_check.large_model import large_run_config, unload_model
from benchmarks.gpu_check.part import Finding
from benchmarks.request_mix import make_requests
from benchmarks.systems.run import System
from benchmarks.systems.tdpipe_engine import run_engine
from benchmarks.systems.transformers_engine import run_generate_batch

if TYPE_CHECKING:
    from benchmarks.gpu_check.context import CheckContext
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.run import Policy, RunResult

POLICIES: tuple[Policy, ...] = ("adaptive", "temporal", "hybrid")
_SEED = 0


def serve_policy(context: CheckContext, policy: Policy) -> Finding:
    """Serve the requests with an engine of its own, whose stages share the device.

    Raises:
        PartSkippedError: the large model is not loaded.
        TDPipeError: the engine does not start, or fails.
    """
    system = System(policy, "tdpipe", context.stages, policy)
    config = large_run_config(context, system, _requests(context))
    run = run_engine(config, context.model)
    shares = ", ".join(f"{each.busy / run.seconds:.0%}" for each in run.stages)
    text = f"stages busy {shares}; {run.preemptions} preemptions"
    return _finding(run, config.requests, text)


def serve_generate_batch(context: CheckContext) -> Finding:
    """Serve the requests with transformers, after tdpipe's weights have left the device.

    Raises:
        PartSkippedError: there is no checkpoint.
        PipelineError: a request fails.
    """
    requests = _requests(context)
    unload_model(context)
    rows = max(context.scale.batches)
    system = System("generate_batch", "generate_batch", rows=rows)
    run = run_generate_batch(large_run_config(context, system, requests))
    return _finding(run, requests, f"at most {rows} rows a step")


def _requests(context: CheckContext) -> tuple[MixRequest, ...]:
    """Make the requests, the same for every system; their number follows from the measured steps."""
    scale = context.scale
    count = scale.requests
    seconds = scale.prompt_tokens * context.prompt_seconds
    seconds += scale.output_tokens * context.output_seconds
    if seconds:
        count = min(max(int(scale.serving_seconds / seconds), scale.min_requests), count)
    random = np.random.default_rng(_SEED)
    prompts, outputs = (
        random.integers(mean // 2, mean + mean // 2 + 1, size=count).tolist()
        for mean in (scale.prompt_tokens, scale.output_tokens)
    )
    lengths = list(zip(prompts, outputs, strict=True))
    return make_requests(lengths, scale.model.vocab_size, _SEED)


def _finding(run: RunResult, requests: tuple[MixRequest, ...], text: str) -> Finding:
    outputs = sum(map(len, run.outputs))
    prompts = sum(len(each.prompt) for each in requests)
    work = f"{len(requests)} requests with {prompts} prompt and {outputs} output tokens"
    return Finding(
        f"{outputs / run.seconds:.0f} output tokens/s; {work}; {text}",
        {
            "output_tokens_per_second": outputs / run.seconds,
            "seconds": run.seconds,
            "requests": len(requests),
            "prompt_tokens": prompts,
            "output_tokens": outputs,
            "stage_busy_seconds": [each.busy for each in run.stages],
            "preemptions": run.preemptions,
        },
    )
