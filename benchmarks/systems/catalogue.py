"""Systems that can be measured, by their names on the command line."""

from __future__ import annotations

from benchmarks.systems.run import System

_HYBRID_BUDGETS = (64, 128, 256)
"""Token budgets of the hybrid policy, in addition to the default."""
_VLLM_BUDGETS = (128, 256, 512, 1_024)
"""Token budgets of vLLM, in addition to its default."""


def _hybrid(stages: int) -> dict[str, System]:
    name = _stages(stages)
    systems = {f"hybrid-{stages}": System(f"hybrid, {name}", "tdpipe", stages, "hybrid")}
    for budget in _HYBRID_BUDGETS:
        systems[f"hybrid-{stages}-{budget}"] = System(
            f"hybrid at {budget} tokens, {name}", "tdpipe", stages, "hybrid", budget
        )
    return systems


def _vllm(stages: int) -> dict[str, System]:
    name = _stages(stages)
    systems = {f"vllm-{stages}": System(f"vLLM, {name}", "vllm", stages)}
    for budget in _VLLM_BUDGETS:
        systems[f"vllm-{stages}-{budget}"] = System(
            f"vLLM at {budget} tokens, {name}", "vllm", stages, token_budget=budget
        )
    return systems


def _stages(number: int) -> str:
    return "1 stage" if number == 1 else f"{number} stages"


SYSTEMS = {
    "temporal-2": System("temporal, 2 stages", "tdpipe", 2, "temporal"),
    "adaptive-2": System("adaptive, 2 stages", "tdpipe", 2, "adaptive"),
    **_hybrid(2),
    "temporal-1": System("temporal, 1 stage", "tdpipe", 1, "temporal"),
    "adaptive-1": System("adaptive, 1 stage", "tdpipe", 1, "adaptive"),
    **_hybrid(1),
    **_vllm(1),
    **_vllm(2),
    "llama-cpp-16": System("llama.cpp, 16 rows", "llama_cpp", rows=16),
    "llama-cpp": System("llama.cpp", "llama_cpp"),
    "generate-batch-16": System("generate_batch, 16 rows", "generate_batch", rows=16),
    "generate-batch": System("generate_batch", "generate_batch"),
    "generate-batch-64": System("generate_batch, 64 rows", "generate_batch", rows=64),
}
