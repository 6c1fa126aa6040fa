"""The checkpoint's tokenizer: text to token ids, chat messages to token ids, token ids to text.

transformers reads the files and renders chat templates. Encoding and decoding use its Rust backend directly, which
releases the GIL and neither warns about long prompts nor truncates them.
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

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
_FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer:
    """A tokenizer that is safe to use from several threads.

    Args:
        hf: a fast tokenizer of transformers.
    """

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
        """Encode a prompt, with the special tokens that the model expects around it, such as BOS."""
        ids = tuple(self._backend.encode(text, add_special_tokens=True).ids)
        return (self.bos_token_id,) if not ids and self.bos_token_id is not None else ids

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Encode a conversation with the chat template, up to the start of the answer.

        Raises:
            RequestError: the model has no chat template, or the template refuses the messages.
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
        """Decode tokens, without special tokens."""
        text: str = self._backend.decode(tokens, skip_special_tokens=True)
        return text

    def token_text(self, token: int) -> str:
        r"""Return the text that `token` adds, or such as `bytes:\xe4\xb8` if it splits a character."""
        text = self._texts.get(token)
        if text is None:
            text = self._in_context(token)
            if "\ufffd" in text:
                text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.token_bytes(token))
            self._texts[token] = text
        return text

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes that `token` adds to a text."""
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
        # Many tokenizers drop the leading space of a token that is decoded alone.
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
    """Load the tokenizer of the checkpoint in this directory. No code of the checkpoint is run.

    Raises:
        ModelError: the checkpoint has no tokenizer, or transformers cannot load it as a fast one.
    """
    from transformers import AutoTokenizer

    if not any((checkpoint / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{checkpoint} has no tokenizer; "
            "put the model's tokenizer.json and tokenizer_config.json there"
        )
    try:
        hf = AutoTokenizer.from_pretrained(
            str(checkpoint), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers passes on whatever its parsers raise
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
    """Map characters to bytes: byte-level tokenizers write printable bytes as themselves, others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()
