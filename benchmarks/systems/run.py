"""The configuration and the result of one benchmark run, which travel as JSON between processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.request_mix import MixRequest
from tdpipe.core.step import Phase  # noqa: TC001 - msgspec reads annotations at run time

BLOCK_SIZE = 16
"""Tokens in a KV block, for every system whose block size can be chosen."""
WARM_UP_REQUESTS = (MixRequest(tuple(range(1, 65)), 16),) * 8
"""Requests that are served before the clock starts."""
Policy = Literal["adaptive", "temporal", "hybrid"]
EngineName = Literal["tdpipe", "generate_batch", "vllm", "llama_cpp"]
"""`generate_batch` is the continuous batching of transformers."""


@dataclass(frozen=True, slots=True)
class System:
    """An engine with the settings under which it is compared."""

    name: str
    engine: EngineName
    stages: int = 1
    policy: Policy | None = None
    """Scheduling policy; only tdpipe has one."""
    token_budget: int | None = None
    """Batch tokens of a step that contains prefill; None takes the run's budget, and vLLM's own default."""
    rows: int = 32
    """Maximum number of sequences in a step of `generate_batch` and llama.cpp."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run of one system. All runs of a benchmark differ in the system only."""

    system: System
    checkpoint: str
    requests: tuple[MixRequest, ...]
    kv_blocks: int
    token_budget: int
    """Batch tokens of a step that contains prefill."""
    threads: int
    """CPU threads of all stages together."""
    dtype: Literal["float32", "bfloat16"]
    profile: str | None = None
    """File of `tdpipe profile` from which the engine takes its costs; None measures them at the start."""
    device: str = "cpu"
    """`cpu` or `cuda`; vLLM and llama.cpp are measured on CPUs only."""
    host: Literal["ray", "in_process"] = "ray"
    """Where the stages of tdpipe run."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Measured and predicted time of one step that the engine issued."""

    phase: Phase
    tokens: int
    """Number of batch tokens."""
    seconds: tuple[float, ...]
    """[stages] measured seconds."""
    predicted: tuple[float, ...]
    """[stages] seconds that the profile predicts."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """Seconds of one stage between the first request and the last token, divided into three parts."""

    busy: float
    """Seconds in which the stage computes."""
    bubble: float
    """Seconds in which the stage waits although steps are in flight."""
    idle: float
    """Seconds in which no step is in flight."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """Measurements of one run."""

    seconds: float
    """Seconds from the first submission to the last token."""
    outputs: tuple[tuple[int, ...], ...]
    """Output tokens of each request, in the order of the configuration."""
    background_cores: float
    """Cores that unrelated processes kept busy during the run."""
    stages: tuple[StageTime, ...] = ()
    """Empty where the system does not report it."""
    preemptions: int | None = None
    phase_switches: int | None = None
    steps: tuple[StepTime, ...] = ()
    """Empty where the configuration names no profile."""
    software: str = ""
    """Versions of an engine that has an environment of its own."""
