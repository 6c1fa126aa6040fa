"""The checkpoint's tokenizer: text to ids, chat messages to ids, ids to text.

transformers reads the files and renders chat templates; encoding and decoding use its Rust backend
directly, which releases the GIL and neither warns about long prompts nor truncates them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from tdpipe.core.errors import ModelError, RequestError

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
_FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer:
    """A fast tokenizer of transformers, `hf`. Safe to use from several threads."""

    def __init__(self, hf: Any) -> None:  # noqa: ANN401 - transformers is untyped
        self._hf = hf
        self._backend = hf.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(i for i, t in added.items() if t.special)
        self.eos_token_id: int | None = hf.eos_token_id
        self.bos_token_id: int | None = hf.bos_token_id
        self.has_chat_template: bool = hf.chat_template is not None
        self._added = frozenset(added)
        self._texts: dict[int, str] = {}

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, with the special tokens that belong around one (BOS)."""
        ids = tuple(self._backend.encode(text, add_special_tokens=True).ids)
        return (self.bos_token_id,) if not ids and self.bos_token_id is not None else ids

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Token ids of a conversation, as the chat template writes it up to the answer's beginning.

        Raises:
            RequestError: there is no template, or it refuses the messages.
        """
        if not self.has_chat_template:
            raise RequestError(
                "this model's tokenizer has no chat template; use /v1/completions", "messages"
            )
        try:
            text = self._hf.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError) as error:
            problem = f"the model's chat template refuses these messages: {error}"
            raise RequestError(problem, "messages") from error
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, without special tokens."""
        text: str = self._backend.decode(tokens, skip_special_tokens=True)
        return text

    def token_text(self, token: int) -> str:
        r"""The text that `token` adds; `bytes:\xe4\xb8` where it is not whole characters."""
        text = self._texts.get(token)
        if text is None:
            text = self._in_context(token)
            if "\ufffd" in text:
                text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.token_bytes(token))
            self._texts[token] = text
        return text

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` adds to a text."""
        piece = self._backend.id_to_token(token) or ""
        if fallback := _FALLBACK_BYTE.fullmatch(piece):
            return bytes([int(fallback[1], 16)])
        if (
            self._byte_level
            and token not in self._added
            and _BYTE_OF_CHARACTER.keys() >= set(piece)
        ):
            return bytes(_BYTE_OF_CHARACTER[character] for character in piece)
        return self._in_context(token).encode()

    def _in_context(self, token: int) -> str:
        # A token alone loses its leading space in many tokenizers.
        before: str = self._backend.decode(self._anchor)
        text: str = self._backend.decode([*self._anchor, token], skip_special_tokens=False)
        return text[len(before) :]

    @cached_property
    def _anchor(self) -> list[int]:
        ids: list[int] = self._backend.encode("a", add_special_tokens=False).ids
        return ids

    @cached_property
    def _byte_level(self) -> bool:
        decoder = self._backend.decoder
        if decoder is None:
            return False
        state = json.loads(decoder.__getstate__())
        return any(part["type"] == "ByteLevel" for part in state.get("decoders", [state]))


def load_tokenizer(checkpoint: Path) -> Tokenizer:
    """The tokenizer of the checkpoint in this directory; no code of the checkpoint is run.

    Raises:
        ModelError: it has no tokenizer, or one that transformers cannot make fast.
    """
    from transformers import AutoTokenizer

    if not any((checkpoint / name).is_file() for name in _FILES):
        raise ModelError(
            f"{checkpoint} has no tokenizer; "
            "put the model's tokenizer.json and tokenizer_config.json there"
        )
    try:
        hf = AutoTokenizer.from_pretrained(
            str(checkpoint), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises whatever its parsers do
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the tokenizer in {checkpoint} cannot be read: {reason}; "
            "save it again with transformers"
        ) from error
    if not hf.is_fast:
        raise ModelError(
            f"the tokenizer in {checkpoint} has no fast version; convert it to a tokenizer.json"
        )
    return Tokenizer(hf)


def _byte_of_character() -> dict[str, int]:
    """Byte-level tokenizers write printable bytes as themselves, the others as U+0100 upwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()
