"""Settings of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tdpipe.core.settings.section import Section


class ModelSettings(Section):
    """The model, and how it is held in memory."""

    path: Path | None = None
    """Directory of a checkpoint with config.json, tokenizer.json and *.safetensors. None serves the demo model."""
    name: str | None = None
    """Name under which the model is served. None takes the directory's name, or `demo`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of every stage; auto is cuda if torch can use it and there is a GPU for each stage, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of weights, activations and KV cache; auto is bfloat16 on GPUs that support it, else float32."""
    attention: Literal["auto", "sdpa", "cpu"] = "auto"
    """Attention backend; auto is the C kernel on CPUs if a compiler is found, else sdpa."""
    max_context: int | None = Field(default=None, ge=2)
    """Maximum number of tokens of prompt and output together. None takes the model's own limit."""
