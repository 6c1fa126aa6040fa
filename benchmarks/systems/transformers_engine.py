"""Runs the continuous batching of transformers.

`generate_batch` takes a single output length for all requests. This module therefore drives the manager that
`generate_batch` uses, so that each request has its own length.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
import transformers

from benchmarks.systems.background_load import BackgroundLoad
from benchmarks.systems.run import BLOCK_SIZE, WARM_UP_REQUESTS, RunResult
from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.run import RunConfig

_PAGE_SIZE = (
    "page_size" if hasattr(transformers.ContinuousBatchingConfig, "page_size") else "block_size"
)
"""Name of the option for the number of tokens in a KV block, which depends on the release of transformers."""


def run_generate_batch(config: RunConfig) -> RunResult:
    """Load the model, start a manager, warm it up, serve the requests and stop it.

    Raises:
        PipelineError: a request failed.
    """
    torch.set_num_threads(config.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        config.checkpoint, dtype=getattr(torch, config.dtype), attn_implementation="sdpa"
    )
    model.to(config.device).eval()
    generation = transformers.GenerationConfig(do_sample=False, eos_token_id=-1)
    batching = transformers.ContinuousBatchingConfig(
        **{_PAGE_SIZE: BLOCK_SIZE},
        num_blocks=config.kv_blocks,
        max_batch_tokens=config.system.token_budget or config.token_budget,
        max_requests_per_batch=config.system.rows,
        allow_block_sharing=False,  # no two prompts share a prefix
    )
    manager = model.init_continuous_batching(generation, batching)
    manager.warmup()
    manager.start()
    try:
        _serve(manager, WARM_UP_REQUESTS, "warm-up")
        load = BackgroundLoad()
        started = time.perf_counter()
        outputs = _serve(manager, config.requests, "request")
        return RunResult(time.perf_counter() - started, outputs, load.cores())
    finally:
        manager.stop(block=True)


def _serve(
    manager: Any,  # noqa: ANN401 - transformers' manager is untyped
    requests: tuple[MixRequest, ...],
    name: str,
) -> tuple[tuple[int, ...], ...]:
    names = [f"{name} {number}" for number in range(len(requests))]
    for request_id, each in zip(names, requests, strict=True):
        manager.add_request(
            list(each.prompt), request_id=request_id, max_new_tokens=each.output_tokens
        )
    outputs: dict[str, tuple[int, ...]] = {}
    while len(outputs) < len(requests):
        result = manager.get_result(timeout=1.0)
        if result is None and not manager.is_running():
            raise PipelineError("transformers' generation thread ended early")
        if result is not None and result.error is not None:
            raise PipelineError(f"{result.request_id} failed in transformers: {result.error}")
        if result is not None and result.is_finished():
            outputs[result.request_id] = tuple(result.generated_tokens)
    return tuple(outputs[request_id] for request_id in names)
