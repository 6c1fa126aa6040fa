"""What a measured process is told and what it answers, as JSON between processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.request_mix import MixRequest
from tdpipe.core.step import Phase  # noqa: TC001 - msgspec reads annotations at run time

BLOCK_SIZE = 16
"""Tokens in a KV block, for every system that can have it."""
WARM_UP = (MixRequest(tuple(range(1, 65)), 16),) * 8
"""Served before the clock starts."""
Engine = Literal["tdpipe", "generate_batch", "vllm", "llama_cpp"]
"""`generate_batch` is of transformers."""
Policy = Literal["adaptive", "temporal", "hybrid"]


@dataclass(frozen=True, slots=True)
class System:
    """One way of serving the requests."""

    name: str
    engine: Engine
    stages: int = 1
    policy: Policy | None = None
    """Of tdpipe, which alone has one."""
    token_budget: int | None = None
    """Batch tokens of a step that contains prefill; None takes the job's, and vLLM's own default."""
    rows: int = 32
    """Sequences in a step of `generate_batch` and llama.cpp, at most."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one system. Every run of a benchmark has the same but for the system."""

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
    """File of `tdpipe profile` that the engine takes its costs from; None measures them at the start."""
    device: str = "cpu"
    """`cpu` or `cuda`; vLLM and llama.cpp are measured on CPUs only."""
    host: Literal["ray", "in_process"] = "ray"
    """Where tdpipe's stages live."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step that the engine issued, and how well the profile knew it."""

    phase: Phase
    tokens: int
    """Batch tokens."""
    seconds: tuple[float, ...]
    """[stages] that it took."""
    predicted: tuple[float, ...]
    """[stages] that the profile says."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """Seconds of a stage between the first request and the last token; their sum is that time."""

    busy: float
    bubble: float
    """Waiting while steps were in flight."""
    idle: float
    """Nothing was in flight."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave."""

    seconds: float
    """From the first submission to the last token."""
    outputs: tuple[tuple[int, ...], ...]
    """Output tokens of each request, in the order of the job."""
    foreign_cores: float
    """Cores that processes of others kept busy meanwhile."""
    stages: tuple[StageTime, ...] = ()
    """Empty where the system does not tell."""
    preemptions: int | None = None
    phase_switches: int | None = None
    steps: tuple[StepTime, ...] = ()
    """Empty where the job names no profile."""
    software: str = ""
    """Versions of what ran, where that is not installed beside the benchmark."""
