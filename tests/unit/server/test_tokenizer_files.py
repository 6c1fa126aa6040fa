from __future__ import annotations

import json
import random
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tdpipe.core.errors import ModelError
from tdpipe.model.support import FAMILIES
from tdpipe.server.chat_template import TemplateMessage
from tdpipe.server.tokenizer import load_tokenizer
from tests.support.tokenizer_kinds import build_hf

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]
CLASSES = (
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "Qwen2Tokenizer",
    "Qwen2TokenizerFast",
    "GemmaTokenizer",
    "GemmaTokenizerFast",
    "PreTrainedTokenizerFast",
)
"""Classes that checkpoints of the supported families name, all of which transformers builds anew."""
STRINGS = 2_000
CORPUS = [
    "Steps: 1. mix 2. bake 3. 1,000 2,000 naïve 日本 😀\n\n\n  of text",
    "the answer is 42\n",
] * 8


def individual_digits() -> Tokenizer:
    """A byte-level file as SmolLM2's is published: each digit is a token, and so are runs of newlines."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def prepended_space() -> Tokenizer:
    """A file as Llama 2's is: the normalizer marks every beginning, also that after a special token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
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
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<unk>", *SPECIAL], show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


FILES = {"individual digits": individual_digits, "prepended space": prepended_space}


def checkpoint(folder: Path, file: Tokenizer, **config: Any) -> Path:  # noqa: ANN401
    file.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@cache
def file_and_tokens(kind: str) -> tuple[Tokenizer, dict[str, tuple[int, ...]]]:
    """A file, and what it makes of many random strings."""
    file = FILES[kind]()
    strings = [text for text in random_strings(STRINGS) if text]
    encodings = file.encode_batch(strings)
    return file, {text: tuple(each.ids) for text, each in zip(strings, encodings, strict=True)}


def random_strings(count: int) -> list[str]:
    draw = random.Random(7)
    parts = [
        "7",
        "42",
        "1,000",
        " ",
        "   ",
        "\n",
        "\n\n",
        "\t",
        "the",
        "bake",
        "é",
        "日",
        "😀",
        ".",
        *SPECIAL,
    ]
    return ["".join(draw.choices(parts, k=draw.randint(0, 24))) for _ in range(count)]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_text_is_tokenized_as_the_file_says_whatever_class_the_checkpoint_names(
    tmp_path: Path, family: str, name: str, kind: str
) -> None:
    file, expected = file_and_tokens(kind)
    checkpoint(tmp_path, file, tokenizer_class=name, legacy=False, add_bos_token=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    loaded = load_tokenizer(tmp_path)
    assert {text: loaded.encode(text) for text in expected} == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tokenizer.model", "SentencePiece"),
        ("spiece.model", "SentencePiece"),
        ("tekken.json", "tekken"),
    ],
)
def test_a_tokenizer_that_only_other_packages_read_is_refused_with_the_way_to_convert_it(
    tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / name).write_bytes(b"\x0a\x05")
    with pytest.raises(
        ModelError, match=f"only as {name}, a {kind} file; convert it .*save_pretrained"
    ) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_files_of_older_checkpoints_are_read_as_their_class_reads_them(tmp_path: Path) -> None:
    file = individual_digits()
    assert file.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("bake 3")) == "bake 3"


@pytest.mark.parametrize(
    "written",
    [
        {"tokenizer_config.json": {"eos_token": "</s>"}},
        {"tokenizer_config.json": {"eos_token": {"content": "</s>", "special": True}}},
        {"special_tokens_map.json": {"eos_token": {"content": "</s>"}}},
        {
            "special_tokens_map.json": {"eos_token": "<s>"},
            "tokenizer_config.json": {"eos_token": "</s>"},
        },
    ],
)
def test_the_end_token_is_found_wherever_files_name_it(
    tmp_path: Path, written: dict[str, dict[str, Any]]
) -> None:
    file = individual_digits()
    file.save(str(tmp_path / "tokenizer.json"))
    for name, content in written.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert load_tokenizer(tmp_path).eos_token_id == file.token_to_id("</s>")


def test_a_template_file_comes_before_the_one_in_the_config(tmp_path: Path) -> None:
    checkpoint(
        tmp_path, individual_digits(), chat_template="{{ messages[0].content }} in the config"
    )
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }} of the file")
    tokens = load_tokenizer(tmp_path).encode_chat([TemplateMessage("user", ("hi",))])
    assert load_tokenizer(tmp_path).decode(tokens) == "hi of the file"


def test_several_templates_without_a_default_are_refused(tmp_path: Path) -> None:
    templates = [
        {"name": name, "template": "{{ messages[0].content }}"} for name in ("rag", "tool_use")
    ]
    checkpoint(tmp_path, individual_digits(), chat_template=templates)
    with pytest.raises(ModelError, match=r"chat templates rag, tool_use and no default; copy"):
        load_tokenizer(tmp_path)


def test_the_default_of_several_templates_is_used(tmp_path: Path) -> None:
    templates = [
        {"name": name, "template": f"{name}: {{{{ messages[0].content }}}}"}
        for name in ("default", "rag")
    ]
    checkpoint(tmp_path, individual_digits(), chat_template=templates)
    assert load_tokenizer(tmp_path).has_chat_template


def test_what_transformers_saves_is_read_back(tmp_path: Path) -> None:
    hf = build_hf("byte_level")
    hf.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.bos_token_id, loaded.eos_token_id) == (hf.bos_token_id, hf.eos_token_id)
    assert loaded.has_chat_template
