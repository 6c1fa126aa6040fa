from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.core.errors import ModelError, RequestError
from tdpipe.server.chat_template import TemplateMessage
from tdpipe.server.served_model import load_served_model
from tdpipe.server.tokenizer import (
    CancelledEncodingError,
    TooManyTokensError,
    load_tokenizer,
)
from tests.support.tokenizer_kinds import KINDS, build_hf, build_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    build_hf("byte_level").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(kind: str, text: str) -> None:
    tokenizer = build_tokenizer(kind)
    tokens = tokenizer.encode(text)
    assert b"".join(map(tokenizer.token_bytes, tokens)).strip(b" ") == text.encode().strip(b" ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_whole_characters_is_named_by_its_text_and_its_space(kind: str) -> None:
    tokenizer = build_tokenizer(kind)
    assert "".join(map(tokenizer.token_text, tokenizer.encode("on the"))).strip(" ") == "on the"
    assert tokenizer.token_text(tokenizer.encode("on the")[-1]).startswith((" ", "e", "t", "h"))


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_a_token_within_a_character_is_named_by_its_bytes(kind: str) -> None:
    tokenizer = build_tokenizer(kind)
    last = tokenizer.encode("\U0001f9ff")[-1]
    assert tokenizer.token_text(last) == r"bytes:\xbf"
    assert tokenizer.token_bytes(last) == b"\xbf"


def test_special_tokens_are_named() -> None:
    tokenizer = build_tokenizer("byte_level")
    assert tokenizer.eos_token_id is not None
    assert tokenizer.token_text(tokenizer.eos_token_id) == "</s>"


def test_an_empty_prompt_is_the_bos_token() -> None:
    tokenizer = build_tokenizer("byte_level")
    assert tokenizer.encode("") == (tokenizer.bos_token_id,)


def test_a_saved_tokenizer_is_loaded_as_it_was(checkpoint: Path) -> None:
    loaded, built = load_tokenizer(checkpoint), build_tokenizer("byte_level")
    messages = [TemplateMessage("user", ("Count from 4 to 11.",))]
    assert loaded.encode("Count from 4 to 11.") == built.encode("Count from 4 to 11.")
    assert loaded.encode_chat(messages) == built.encode_chat(messages)
    assert loaded.special_ids == built.special_ids


def test_a_long_prompt_is_not_truncated(checkpoint: Path) -> None:
    hf = build_hf("byte_level")
    hf.backend_tokenizer.enable_truncation(4)
    hf.save_pretrained(checkpoint)
    assert len(load_tokenizer(checkpoint).encode("one two three four five six")) > 4


def test_a_checkpoint_without_tokenizer_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer; put .*tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_broken_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_template_s_refusal_is_the_request_s_error() -> None:
    with pytest.raises(RequestError, match="the user speaks first"):
        build_tokenizer("byte_level").encode_chat([TemplateMessage("assistant", ("x",))])


@pytest.mark.parametrize(
    ("config", "temperature"),
    [(None, 1.0), ("{}", 1.0), ('{"do_sample": true}', 1.0), ('{"do_sample": false}', 0.0)],
)
def test_greedy_is_the_default_of_a_checkpoint_that_says_so(
    checkpoint: Path, config: str | None, temperature: float
) -> None:
    if config is not None:
        (checkpoint / "generation_config.json").write_text(config)
    assert load_served_model(checkpoint, "m", ()).default_temperature == temperature


def test_the_tokenizer_s_end_token_is_added_to_the_configured_ones(checkpoint: Path) -> None:
    model = load_served_model(checkpoint, "m", (77,))
    assert model.eos_token_ids == {77, build_tokenizer("byte_level").eos_token_id}


def test_a_broken_generation_config_is_refused(checkpoint: Path) -> None:
    (checkpoint / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json is not JSON"):
        load_served_model(checkpoint, "m", ())


def test_a_text_that_can_never_fit_is_refused_by_its_first_part() -> None:
    tokenizer = build_tokenizer("byte_level")
    with pytest.raises(TooManyTokensError) as refused:
        tokenizer.encode("one two three " * 100_000, max_tokens=50)
    assert 100 < refused.value.tokens <= 50 * 4 * 2


@given(text=st.text("abe \n", max_size=400), bound=st.integers(1, 20))
def test_a_text_that_fits_is_encoded_whole_whatever_the_bound(text: str, bound: int) -> None:
    tokenizer = build_tokenizer("byte_level")
    whole = tokenizer.encode(text)
    if len(whole) <= bound:
        assert tokenizer.encode(text, max_tokens=bound) == whole


def test_a_text_that_nobody_waits_for_is_not_encoded() -> None:
    with pytest.raises(CancelledEncodingError):
        build_tokenizer("byte_level").encode("text", cancelled=lambda: True)


def test_other_threads_run_while_a_text_is_encoded() -> None:
    text = "one two three " * 100_000
    encoding = threading.Thread(target=build_tokenizer("byte_level").encode, args=(text,))
    encoding.start()
    turns = 0
    while encoding.is_alive():
        encoding.join(0.001)
        turns += 1
    assert turns > 10
