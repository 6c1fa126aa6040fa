"""Small tokenizers of the three kinds that checkpoints have, built without any file."""

from __future__ import annotations

from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tdpipe.server.tokenizer import Tokenizer as ServerTokenizer

_CORPUS = [
    "Count from 4 to 11. The answer is 4, 5, 6, 7, 8, 9, 10, 11.",
    "naïve café, größer; 日本語のテキスト 😀 emoji 😀😀, Привет мир, éééééé",
    "once upon a time  there were    spaces\nand\tlines\n\nof text",
] * 4
_SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' and loop.first %}"
    "{{ raise_exception('the user speaks first') }}"
    "{% endif %}"
    "<|{{ 'assistant' if m['role'] == 'assistant' else 'user' }}|>{{ m['content'] }}</s>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
KINDS = ("byte_level", "byte_fallback", "metaspace")


@cache
def build_tokenizer(kind: str, *, chat: bool = True) -> ServerTokenizer:
    """A tokenizer with `<s>`, `</s>` and two role tokens as special tokens."""
    hf = build_hf(kind, chat=chat)
    return ServerTokenizer(hf.backend_tokenizer, hf.special_tokens_map, hf.chat_template)


def build_hf(kind: str, *, chat: bool = True) -> PreTrainedTokenizerFast:
    """The same as transformers has it."""
    backend = {"byte_level": _byte_level, "byte_fallback": _byte_fallback, "metaspace": _metaspace}[
        kind
    ]()
    backend.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    hf.chat_template = CHAT_TEMPLATE if chat else None
    return hf


def build_straddling() -> tuple[ServerTokenizer, int, int, int]:
    """A byte-level tokenizer whose one merge joins the end of an é to the beginning of the next.

    Returns (tokenizer, id of the first byte of é, id of the merge, id of the last byte).
    """
    vocabulary = {piece: index for index, piece in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    first, last = "Ã", "©"  # how the alphabet writes 0xC3 and 0xA9
    merge = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary | {last + first: merge}, [(last, first)]))
    backend.decoder = decoders.ByteLevel()
    return ServerTokenizer(backend, {}, None), vocabulary[first], merge, vocabulary[last]


def _byte_level() -> Tokenizer:
    # No splitting into words, so that merges cross characters and a token may end and begin in the
    # midst of one.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _byte_fallback() -> Tokenizer:
    bytes_ = {f"<0x{byte:02X}>": 5 + byte for byte in range(256)}
    vocabulary = {"<unk>": 0, **{text: index for index, text in enumerate(_SPECIAL, 1)}, **bytes_}
    pieces = [
        "▁",
        "a",
        "b",
        "c",
        "d",
        "e",
        "o",
        "n",
        "t",
        "r",
        "s",
        "é",
        "h",
        "▁t",
        "he",
        "▁the",
        "er",
        "on",
        "▁on",
        "ré",
    ]
    vocabulary |= {piece: len(vocabulary) + index for index, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("e", "r"), ("o", "n"), ("▁", "on"), ("r", "é")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", *_SPECIAL], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer
