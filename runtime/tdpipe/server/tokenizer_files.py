"""What a checkpoint's tokenizer files say.

`tokenizer.json` alone decides how text becomes tokens. transformers rebuilds a tokenizer from the class that
tokenizer_config.json names and drops parts of the file on the way, so it is not asked where that file is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from tdpipe.core.errors import ModelError

_NEEDS_CONVERSION = {
    "tekken.json": "a tekken file",
    "tokenizer.model": "a SentencePiece file",
    "spiece.model": "a SentencePiece file",
    "sentencepiece.bpe.model": "a SentencePiece file",
}
"""Files that hold a tokenizer which only other packages can read."""
_CONVERT = (
    'python -c "from transformers import AutoTokenizer as T; '
    "T.from_pretrained('{checkpoint}').save_pretrained('converted')\""
)
_GPT2_FILES = ("vocab.json", "merges.txt")
_DEFAULT_TEMPLATE = "default"


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The content of the files."""

    backend: Backend
    """Encodes and decodes, exactly as tokenizer.json says."""
    special_tokens: Mapping[str, str]
    """Text of each special token by its name, such as `eos_token`; chat templates may use these names."""
    chat_template: str | None
    """Source of the chat template; None where the checkpoint has none."""


def read_tokenizer_files(checkpoint: Path) -> TokenizerFiles:
    """Read the tokenizer of the checkpoint in this directory; no code of the checkpoint is run.

    Raises:
        ModelError: there is no tokenizer, it is broken, or it must be converted first.
    """
    config = _read_json(checkpoint / "tokenizer_config.json")
    special_tokens = _special_tokens(_read_json(checkpoint / "special_tokens_map.json"))
    special_tokens |= _special_tokens(config)
    return TokenizerFiles(
        _read_backend(checkpoint), special_tokens, _read_template(checkpoint, config)
    )


def _read_backend(checkpoint: Path) -> Backend:
    file = checkpoint / "tokenizer.json"
    if file.is_file():
        try:
            return Backend.from_file(str(file))
        except Exception as error:  # the Rust library raises plain exceptions
            raise ModelError(f"{file} cannot be read: {_line(error)}; restore it") from error
    for name, kind in _NEEDS_CONVERSION.items():
        if (checkpoint / name).is_file():
            raise ModelError(
                f"{checkpoint} has its tokenizer only as {name}, {kind}; convert it once, where `sentencepiece` and "
                f'`tiktoken` are installed, and copy the tokenizer.json that this writes: python -c "from transformers '
                f"import AutoTokenizer as T; T.from_pretrained('{checkpoint}').save_pretrained('converted')\""
            )
    if all((checkpoint / name).is_file() for name in _GPT2_FILES):
        return _build_from_vocabulary(checkpoint)
    raise ModelError(
        f"{checkpoint} has no tokenizer; put the model's tokenizer.json and tokenizer_config.json there"
    )


def _build_from_vocabulary(checkpoint: Path) -> Backend:
    """Only transformers knows how the classes of older checkpoints read vocab.json and merges.txt."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(checkpoint), local_files_only=True, trust_remote_code=False
        )
        backend: Backend = tokenizer.backend_tokenizer
    except Exception as error:  # transformers raises whatever its parsers do
        raise ModelError(
            f"the tokenizer in {checkpoint} cannot be read: {_line(error)}; put the model's tokenizer.json there"
        ) from error
    return backend


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Names and texts of special tokens, which files write as strings or as objects."""
    extra = config.get("extra_special_tokens")
    named = dict(config) | (extra if isinstance(extra, dict) else {})
    texts = {
        name: value.get("content") if isinstance(value, dict) else value
        for name, value in named.items()
        if name.endswith("_token")
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _read_template(checkpoint: Path, config: Mapping[str, Any]) -> str | None:
    """Find the chat template: a file of its own takes precedence over tokenizer_config.json."""
    named: dict[str, str] = {}
    folder = checkpoint / "chat_templates"
    for file in sorted(folder.glob("*.jinja")) if folder.is_dir() else ():
        named[file.stem] = file.read_text(encoding="utf-8")
    if (file := checkpoint / "chat_template.jinja").is_file():
        named[_DEFAULT_TEMPLATE] = file.read_text(encoding="utf-8")
    given = config.get("chat_template")
    if not named and isinstance(given, str):
        named = {_DEFAULT_TEMPLATE: given}
    elif not named and isinstance(given, list):
        named = {str(each["name"]): str(each["template"]) for each in given}
    if not named:
        return None
    if len(named) == 1:
        (template,) = named.values()
        return template
    if _DEFAULT_TEMPLATE not in named:
        raise ModelError(
            f"{checkpoint} has the chat templates {', '.join(sorted(named))} and no default; copy the one to use to "
            "chat_template.jinja"
        )
    return named[_DEFAULT_TEMPLATE]


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {_line(error)}; restore it") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds no object; restore it")
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
