"""The model as clients of the API see it: its name, tokenizer, end tokens and default temperature."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tdpipe.core.errors import ModelError
from tdpipe.server.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that requests can name, with what is needed to tokenize for it."""

    name: str
    tokenizer: Tokenizer
    eos_token_ids: frozenset[int]
    default_temperature: float = 1.0
    """Temperature of requests that give none: OpenAI's default, or 0 if the checkpoint asks for greedy decoding."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time in seconds at which the model was loaded."""


def load_served_model(checkpoint: Path, name: str, eos_token_ids: Iterable[int]) -> ServedModel:
    """Load the tokenizer and the defaults of a model.

    Args:
        checkpoint: directory of the model.
        name: name by which clients request the model.
        eos_token_ids: end tokens of the model's configuration; the tokenizer's own is added.

    Raises:
        ModelError: the tokenizer or generation_config.json cannot be read.
    """
    tokenizer = load_tokenizer(checkpoint)
    eos = set(eos_token_ids)
    if tokenizer.eos_token_id is not None:
        eos.add(tokenizer.eos_token_id)
    greedy = _is_greedy(checkpoint / "generation_config.json")
    return ServedModel(name, tokenizer, frozenset(eos), 0.0 if greedy else 1.0)


def _is_greedy(generation_config: Path) -> bool:
    if not generation_config.is_file():
        return False
    try:
        fields = json.loads(generation_config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{generation_config} is not JSON: {error}; correct or remove it"
        ) from error
    return isinstance(fields, dict) and fields.get("do_sample") is False
