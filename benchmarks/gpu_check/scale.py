"""Sizes and times of everything that the check measures, one set for a GPU and one for a dry run on any CPU."""

from __future__ import annotations

from dataclasses import dataclass

from tdpipe.core.model_sizes import ModelSizes


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes and times of all parts."""

    copy_bytes: int
    """Bytes that are copied on the device to measure its memory's bandwidth."""
    matrix: int
    """Rows, and columns, of the square matrices that are multiplied."""
    prompts: tuple[int, ...]
    """Tokens of the prompts whose output is compared with transformers."""
    outputs: int
    """Output tokens of each of them."""
    model: ModelSizes
    """The large Llama; it has fewer layers where there is no room or time for all."""
    min_layers: int
    """Number of layers below which it is not worth measuring."""
    max_context: int
    """Tokens of prompt and output together that the large model allows."""
    batches: tuple[int, ...]
    """Rows of the decode steps that are measured, ascending."""
    context: int
    """KV tokens of each row of these steps."""
    prefill: int
    """Tokens of the measured prefill, and the token budget of every policy."""
    step_seconds: float
    """Time for repeating one kind of step."""
    requests: int
    """Maximum number of requests that every policy serves."""
    min_requests: int
    """Number of requests that are served even where steps are slow."""
    prompt_tokens: int
    """Mean number of prompt tokens of a request, which vary from half of it to one and a half times."""
    output_tokens: int
    """Mean number of output tokens of a request, which vary likewise."""
    serving_seconds: float
    """Time that a policy should need for the requests, from which their number follows."""
    profile_seconds: float
    """Time for measuring the profile, apart from the start."""


FULL = Scale(
    copy_bytes=4 * 2**30,
    matrix=8_192,
    prompts=(3, 9, 26, 41, 17),
    outputs=16,
    model=ModelSizes(
        name="random-llama-8b",
        layers=32,
        hidden_size=4_096,
        intermediate_size=14_336,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocab_size=128_256,
    ),
    min_layers=4,
    max_context=8_192,
    batches=(1, 32, 256),
    context=256,
    prefill=2_048,
    step_seconds=4.0,
    requests=256,
    min_requests=16,
    prompt_tokens=256,
    output_tokens=128,
    serving_seconds=15.0,
    profile_seconds=20.0,
)
"""The sizes of Llama 3.1 8B, and times that are meant to fit a large data-centre GPU; none has confirmed them yet."""

DRY = Scale(
    copy_bytes=2**20,
    matrix=64,
    prompts=(9, 26),
    outputs=5,
    model=ModelSizes(
        name="tiny-llama",
        layers=4,
        hidden_size=64,
        intermediate_size=96,
        heads=8,
        kv_heads=2,
        head_dim=16,
        vocab_size=256,
    ),
    min_layers=4,
    max_context=256,
    batches=(1, 4, 8),
    context=16,
    prefill=64,
    step_seconds=0.1,
    requests=8,
    min_requests=4,
    prompt_tokens=16,
    output_tokens=8,
    serving_seconds=0.5,
    profile_seconds=1.0,
)
"""Shapes that any CPU computes in milliseconds. They show that every part runs; the figures mean nothing."""
