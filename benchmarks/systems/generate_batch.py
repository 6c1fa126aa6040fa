"""Transformers' continuous batching as a measured system.

`generate_batch` itself takes one output length for all requests. So its manager is driven directly,
which is all that `generate_batch` does besides waiting.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
import transformers

from benchmarks.systems.foreign_load import ForeignLoad
from benchmarks.systems.job import BLOCK_SIZE, WARM_UP, Run
from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.job import Job

_PAGE_SIZE = (
    "page_size" if hasattr(transformers.ContinuousBatchingConfig, "page_size") else "block_size"
)
"""The option for the tokens in a KV block; older releases of transformers call it a block, too."""


def run_generate_batch(job: Job) -> Run:
    """Load the model, start a manager, warm it up, serve the requests and stop it.

    Raises:
        PipelineError: a request failed.
    """
    torch.set_num_threads(job.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job.checkpoint, dtype=getattr(torch, job.dtype), attn_implementation="sdpa"
    )
    model.to(job.device).eval()
    generation = transformers.GenerationConfig(do_sample=False, eos_token_id=-1)
    batching = transformers.ContinuousBatchingConfig(
        **{_PAGE_SIZE: BLOCK_SIZE},
        num_blocks=job.kv_blocks,
        max_batch_tokens=job.system.token_budget or job.token_budget,
        max_requests_per_batch=job.system.rows,
        allow_block_sharing=False,  # no two prompts begin alike
    )
    manager = model.init_continuous_batching(generation, batching)
    manager.warmup()
    manager.start()
    try:
        _serve(manager, WARM_UP, "warm-up")
        load = ForeignLoad()
        started = time.perf_counter()
        outputs = _serve(manager, job.requests, "request")
        return Run(time.perf_counter() - started, outputs, load.cores())
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
