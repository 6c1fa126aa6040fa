"""The checkpoint's tokenizer: text to token ids, chat messages to token ids, token ids to text.

It is the Rust library's, exactly as tokenizer.json says. Long texts are encoded piece by piece, so that a text which
can never fit costs no more than one that just does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as Backend

from tdpipe.core.errors import RequestError, TDPipeError
from tdpipe.server.chat_template import ChatTemplate, TemplateMessage
from tdpipe.server.tokenizer_files import read_tokenizer_files

_FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WINDOW_CHARACTERS = 4
"""Characters per token that fits, of the part of a long text that is encoded first."""
_CERTAIN_EXCESS = 2
"""A part with this many times the tokens that fit proves the whole text too long: what follows a part changes how
its last few tokens are cut, never half of them."""


class TooManyTokensError(TDPipeError):
    """A text has more tokens than can ever fit.

    Args:
        tokens: how many its first part alone has.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__(f"the text has more than {tokens} tokens")
        self.tokens = tokens


class CancelledEncodingError(TDPipeError):
    """Nobody waits for the tokens any more."""


def _never() -> bool:
    return False


class Tokenizer:
    """Safe to use from several threads.

    Args:
        backend: the Rust library's tokenizer.
        special_tokens: text of each special token by its name, such as `eos_token`.
        chat_template: source of the chat template; None where there is none.

    Raises:
        ModelError: the chat template cannot be used.
    """

    def __init__(
        self, backend: Backend, special_tokens: Mapping[str, str], chat_template: str | None
    ) -> None:
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        added = backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(i for i, t in added.items() if t.special)
        self.eos_token_id = self._id_of(special_tokens.get("eos_token"))
        self.bos_token_id = self._id_of(special_tokens.get("bos_token"))
        self._template = (
            None if chat_template is None else ChatTemplate(chat_template, special_tokens)
        )
        self._added = frozenset(added)
        self._texts: dict[int, str] = {}

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be encoded."""
        return self._template is not None

    def encode(
        self, text: str, max_tokens: int | None = None, cancelled: Callable[[], bool] = _never
    ) -> tuple[int, ...]:
        """Token ids of a prompt, with the special tokens that belong around one (BOS).

        Args:
            text: the prompt.
            max_tokens: how many tokens can fit at most; None encodes any text whole.
            cancelled: tells whether nobody waits any more; asked before each part.

        Raises:
            TooManyTokensError: the text has certainly more than `max_tokens`.
            CancelledEncodingError: nobody waits any more.
        """
        ids = self._encode(text, max_tokens, cancelled, special=True)
        return (self.bos_token_id,) if not ids and self.bos_token_id is not None else ids

    def encode_chat(
        self,
        messages: Sequence[TemplateMessage],
        max_tokens: int | None = None,
        cancelled: Callable[[], bool] = _never,
    ) -> tuple[int, ...]:
        """Token ids of a conversation, as the chat template writes it up to the answer's beginning.

        Args:
            messages: the conversation.
            max_tokens: as in `encode`.
            cancelled: as in `encode`.

        Raises:
            RequestError: there is no template, or it refuses the messages.
            TooManyTokensError: the text has certainly more than `max_tokens`.
            CancelledEncodingError: nobody waits any more.
        """
        if self._template is None:
            raise RequestError(
                "this model's tokenizer has no chat template; use /v1/completions", "messages"
            )
        text = self._template.render(messages)
        return self._encode(text, max_tokens, cancelled, special=False)

    def _encode(
        self, text: str, max_tokens: int | None, cancelled: Callable[[], bool], *, special: bool
    ) -> tuple[int, ...]:
        window = len(text) if max_tokens is None else _WINDOW_CHARACTERS * max_tokens
        while True:
            if cancelled():
                raise CancelledEncodingError
            # `encode` holds the interpreter's lock all along, `encode_batch` lets go of it.
            (encoding,) = self._backend.encode_batch([text[:window]], add_special_tokens=special)
            if window >= len(text):
                return tuple(encoding.ids)
            if max_tokens is not None and len(encoding) > _CERTAIN_EXCESS * max_tokens:
                raise TooManyTokensError(len(encoding))
            window *= 2

    def _id_of(self, text: str | None) -> int | None:
        token: int | None = None if text is None else self._backend.token_to_id(text)
        return token

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
    """Load the tokenizer of the checkpoint in this directory; no code of the checkpoint is run.

    Raises:
        ModelError: there is none that can be used.
    """
    files = read_tokenizer_files(checkpoint)
    return Tokenizer(files.backend, files.special_tokens, files.chat_template)


def _byte_of_character() -> dict[str, int]:
    """Map characters to bytes: byte-level tokenizers write printable bytes as themselves, others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()
