"""What a checkpoint is, read from its config before any weight is.

Everything that cannot be served is refused here, so that nobody waits for a load that must fail.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tdpipe.core.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2")
"""Model types whose output has been proved equal to transformers' own."""

_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A checkpoint's shape."""

    path: Path
    family: str
    layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    heads: int
    kv_heads: int
    head_dim: int
    max_context: int
    """Tokens of prompt and output together that the positions reach."""
    tied: bool
    """The head's weights are the embedding's."""
    eos_token_ids: tuple[int, ...]
    """From config.json and generation_config.json."""

    def kv_bytes_per_token(self, layers: int, dtype_bytes: int) -> int:
        """Bytes that a token's keys and values take in so many layers."""
        return 2 * layers * self.kv_heads * self.head_dim * dtype_bytes


def describe_model(path: Path) -> ModelDescription:
    """Read the description of the checkpoint in directory `path`.

    Raises:
        ModelError: it is missing, broken, holds pickled weights only, or is of a kind not proved equal.
    """
    if not path.is_dir():
        raise ModelError(
            f"model.path: no such directory: {path}; give the directory of a checkpoint"
        )
    config = _read_json(path / "config.json")
    if not any(path.glob("*.safetensors")):
        pickled = any(any(path.glob(pattern)) for pattern in _PICKLES)
        problem = "only pickled weights" if pickled else "no *.safetensors"
        raise ModelError(
            f"model.path: {path} has {problem}; save the model with "
            "transformers' save_pretrained, which writes safetensors"
        )
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise ModelError(
            f"model.path: models of type {family} have not been proved equal to transformers; "
            f"serve one of {', '.join(FAMILIES)}"
        )
    for field, why in (
        ("quantization_config", "is quantized"),
        ("is_encoder_decoder", "has an encoder"),
    ):
        if config.get(field):
            raise ModelError(
                f"model.path: {path} {why}, which is not supported; serve a plain decoder"
            )
    try:
        heads = int(config["num_attention_heads"])
        return ModelDescription(
            path=path,
            family=family,
            layers=int(config["num_hidden_layers"]),
            hidden_size=int(config["hidden_size"]),
            intermediate_size=int(config["intermediate_size"]),
            vocab_size=int(config["vocab_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
            max_context=int(config["max_position_embeddings"]),
            tied=bool(config.get("tie_word_embeddings", family == "gemma2")),
            eos_token_ids=_eos(path, config),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"model.path: {path}/config.json is incomplete: {error}; restore it"
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise ModelError(
            f"model.path: {file} is missing; give the directory of a checkpoint"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"model.path: {file} cannot be read: {error}; restore it") from error
    if not isinstance(content, dict):
        raise ModelError(f"model.path: {file} holds no object; restore it")
    return content


def _eos(path: Path, config: dict[str, Any]) -> tuple[int, ...]:
    generation = path / "generation_config.json"
    given = [config.get("eos_token_id")]
    if generation.is_file():
        given.append(_read_json(generation).get("eos_token_id"))
    flat = [token for each in given for token in (each if isinstance(each, list) else [each])]
    return tuple(sorted({int(token) for token in flat if token is not None}))
