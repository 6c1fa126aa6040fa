"""The description of a checkpoint, read from its config before any weights are.

Every checkpoint that cannot be served is refused here, so that nobody waits for a load that must fail.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tdpipe.core.errors import ModelError
from tdpipe.core.model_sizes import ModelSizes
from tdpipe.model.partition import check_stages
from tdpipe.model.support import check_supported

if TYPE_CHECKING:
    from pathlib import Path

_PICKLED_WEIGHTS = ("pytorch_model*.bin", "*.pt", "*.pth")
_CONVERT_COMMAND = (
    'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
    "M.from_pretrained('{path}', dtype='auto').save_pretrained('{path}-safetensors'); "
    "T.from_pretrained('{path}').save_pretrained('{path}-safetensors')\""
)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The sizes and limits of a checkpoint's model."""

    path: Path
    family: str
    sizes: ModelSizes
    max_context: int
    """Maximum number of tokens of prompt and output together, which the positions allow."""
    eos_token_ids: tuple[int, ...]
    """Token ids that end an output, from config.json and generation_config.json."""


def describe_model(path: Path) -> ModelDescription:
    """Read the description of the checkpoint in directory `path`.

    Values that config.json leaves out are transformers' defaults of the family, as when the weights are loaded.

    Raises:
        ModelError: the checkpoint is missing or broken, has only pickled weights, or has a feature that is not
            supported.
    """
    given = check_checkpoint(path)
    config = _load_config(path)
    heads = config.num_attention_heads
    return ModelDescription(
        path=path,
        family=given["model_type"],
        sizes=ModelSizes(
            name=path.resolve().name,
            layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            heads=heads,
            kv_heads=config.num_key_value_heads or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocab_size=config.vocab_size,
            tied=config.tie_word_embeddings,
        ),
        max_context=_max_context(config),
        eos_token_ids=_eos_token_ids(path, given, config),
    )


def check_checkpoint(path: Path, stages: int = 1) -> dict[str, Any]:
    """Refuse a checkpoint that cannot be served, as far as its files show it without a slow import.

    Args:
        path: directory of the checkpoint.
        stages: number of stages that its layers are divided among.

    Returns:
        The content of config.json.

    Raises:
        ModelError: the checkpoint is missing or broken, has only pickled weights, or has a feature that is not
            supported.
        SettingsError: the checkpoint has fewer layers than stages.
    """
    if not path.exists():
        raise ModelError(
            f"model.path: no such directory: {path}; give the directory of a checkpoint"
        )
    if not path.is_dir():
        raise ModelError(
            f"model.path: {path} is not a directory; give the directory that holds config.json"
        )
    given = _read_json(path / "config.json")
    _check_weights(path)
    check_supported(path, given)
    layers = given.get("num_hidden_layers")
    if isinstance(layers, int):
        check_stages(layers, stages)
    return given


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
        raise ModelError(f"model.path: {file} is not a JSON object; restore it")
    return content


def _check_weights(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return
    if any(any(path.glob(pattern)) for pattern in _PICKLED_WEIGHTS):
        raise ModelError(
            f"model.path: {path} has only pickled weights, which can run code when loaded; "
            f"if you trust them, convert them to safetensors: {_CONVERT_COMMAND.format(path=path)}"
        )
    raise ModelError(f"model.path: {path} has no *.safetensors; copy the weights there")


def _load_config(path: Path) -> Any:  # noqa: ANN401 - transformers' configs are untyped
    # Importing transformers takes seconds, for which bad input need not wait.
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # transformers' validators raise many types
        problem = " ".join(str(error).split())
        raise ModelError(
            f"model.path: {path}/config.json is not valid: {problem}; restore it"
        ) from error


def _max_context(config: Any) -> int:  # noqa: ANN401 - transformers' configs are untyped
    """Return the number of positions, which rope scaling extends by its factor.

    With `yarn` it is computed from the original length, because `max_position_embeddings` may be the length before or
    after scaling. The lengths in `llama3` and `longrope` checkpoints are those after scaling (as vLLM reads them,
    config/model.py).
    """
    rope = getattr(config, "rope_parameters", None) or {}
    length = int(config.max_position_embeddings)
    if rope.get("rope_type") == "yarn":
        length = int(rope.get("original_max_position_embeddings") or length)
    elif rope.get("rope_type") != "linear":
        return length
    return int(length * float(rope.get("factor") or 1.0))


def _eos_token_ids(path: Path, given: dict[str, Any], config: Any) -> tuple[int, ...]:  # noqa: ANN401
    found = []
    if "eos_token_id" in given:
        found.append(given["eos_token_id"])
    generation = path / "generation_config.json"
    if generation.is_file():
        found.append(_read_json(generation).get("eos_token_id"))
    if not found:
        found.append(config.eos_token_id)
    flat = [token for each in found for token in (each if isinstance(each, list) else [each])]
    return tuple(sorted({int(token) for token in flat if token is not None}))
