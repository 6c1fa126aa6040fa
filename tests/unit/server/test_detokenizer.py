from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.server.detokenizer import Detokenizer
from tests.support.tokenizer_kinds import KINDS, build_straddling, build_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.server.tokenizer import Tokenizer

NO_TEXT = 5 + 0xFF
"""Token of the `byte_fallback` tokenizer for a byte that is in no character."""

kinds = pytest.mark.parametrize("kind", KINDS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(
    "é日😀 aon\n", max_size=200
)


def stream(kind: str, tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(build_tokenizer(kind))
    return [*(detokenizer.step(token) for token in tokens), detokenizer.finish()]


@kinds
@given(text=texts)
def test_streamed_text_equals_the_whole_text(kind: str, text: str) -> None:
    tokenizer = build_tokenizer(kind)
    tokens = list(tokenizer.encode(text))
    assert "".join(stream(kind, tokens)) == tokenizer.decode(tokens)


@kinds
@given(text=texts)
def test_no_piece_holds_part_of_a_character(kind: str, text: str) -> None:
    if "\ufffd" not in text:
        pieces = stream(kind, list(build_tokenizer(kind).encode(text)))
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(text=texts)
def test_text_of_byte_tokenizers_comes_back_as_it_was(kind: str, text: str) -> None:
    tokens = list(build_tokenizer(kind).encode(text))
    if text:
        assert "".join(stream(kind, tokens)) == text


@kinds
@given(data=st.data())
def test_any_tokens_give_text_and_none_is_held_back_for_long(
    kind: str, data: st.DataObject
) -> None:
    tokenizer = build_tokenizer(kind)
    ids = st.integers(0, 300)
    tokens = data.draw(st.lists(ids, max_size=150))
    detokenizer = Detokenizer(tokenizer)
    for token in tokens:
        detokenizer.step(token)
        assert len(detokenizer._window) <= 65
    detokenizer.finish()


def test_characters_that_tokens_straddle_come_as_soon_as_they_are_whole() -> None:
    tokenizer, first, straddling, last = build_straddling()
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.step(first) == ""
    assert [detokenizer.step(straddling) for _ in range(300)] == ["é"] * 300
    assert detokenizer.step(last) == "é"


def test_an_unfinished_character_is_shown_as_replacement_only_at_the_end() -> None:
    tokenizer = build_tokenizer("byte_fallback")
    tokens = list(tokenizer.encode("a日"))[:-1]
    pieces = stream("byte_fallback", tokens)
    assert "".join(pieces[:-1]) == "a"
    assert set(pieces[-1]) == {"\ufffd"}


def test_bytes_that_are_no_text_do_not_stop_what_follows() -> None:
    tokenizer = build_tokenizer("byte_fallback")
    character, garbage, tail = tokenizer.encode("日")[1:], [NO_TEXT] * 2, tokenizer.encode("on")
    assert "".join(stream("byte_fallback", [*character, *garbage, *tail])).endswith(" on")


def test_special_tokens_have_no_text() -> None:
    tokenizer = build_tokenizer("byte_fallback")
    assert tokenizer.eos_token_id is not None
    the = tokenizer.encode("the")
    assert "".join(stream("byte_fallback", [*the, tokenizer.eos_token_id, *the])) == "the the"


@pytest.mark.parametrize("kind", ["byte_fallback", "metaspace"])
def test_the_first_token_keeps_its_space_when_it_continues_a_prompt(kind: str) -> None:
    tokenizer = build_tokenizer(kind)
    prompt, the = tokenizer.encode("on"), tokenizer.encode("the")
    continued = Detokenizer(tokenizer, prompt)
    fresh = Detokenizer(tokenizer)
    assert "".join(map(continued.step, the)) == " the"
    assert "".join(map(fresh.step, the)) == "the"


@kinds
@given(prompt=texts, text=texts)
def test_a_prompt_is_never_repeated_in_the_output(kind: str, prompt: str, text: str) -> None:
    tokenizer = build_tokenizer(kind)
    before, tokens = tokenizer.encode(prompt), tokenizer.encode(text)
    detokenizer = Detokenizer(tokenizer, before)
    streamed = "".join(map(detokenizer.step, tokens)) + detokenizer.finish()
    assert streamed.strip(" ") == tokenizer.decode(tokens).strip(" ")


def test_bytes_that_are_no_text_are_held_back_only_while_they_could_start_a_character() -> None:
    detokenizer = Detokenizer(build_tokenizer("byte_fallback"))
    shown = "".join(detokenizer.step(NO_TEXT) for _ in range(10))
    assert shown == "\ufffd" * 7  # a character of four bytes lacks its last byte for three tokens


def test_text_after_many_bytes_that_are_no_text_keeps_its_spaces() -> None:
    tokenizer = build_tokenizer("byte_fallback")
    tokens = [*[NO_TEXT] * 100, *tokenizer.encode("on the on")]
    assert "".join(stream("byte_fallback", tokens)) == tokenizer.decode(tokens)


def test_text_continues_a_prompt_whose_last_tokens_start_within_a_character() -> None:
    tokenizer = build_tokenizer("byte_fallback")
    detokenizer = Detokenizer(tokenizer, tokenizer.encode("日日"))
    character = tokenizer.encode("日")[1:]
    assert "".join(map(detokenizer.step, character)) == "日"


def test_the_text_that_is_held_back_at_the_end_is_returned_once() -> None:
    tokenizer = build_tokenizer("byte_fallback")
    detokenizer = Detokenizer(tokenizer)
    for token in tokenizer.encode("日")[:-1]:
        detokenizer.step(token)
    assert detokenizer.finish()
    assert detokenizer.finish() == ""


class CountingDecoder:
    """A tokenizer's decoder that notes the largest number of tokens that it has decoded at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = 0

    @property
    def special_ids(self) -> frozenset[int]:
        return self._tokenizer.special_ids

    def decode(self, tokens: Sequence[int]) -> str:
        self.max_tokens = max(self.max_tokens, len(tokens))
        return self._tokenizer.decode(tokens)


def test_a_token_costs_no_more_after_many_tokens_that_straddle_characters() -> None:
    tokenizer, first, straddling, _ = build_straddling()
    decoder = CountingDecoder(tokenizer)
    detokenizer = Detokenizer(decoder)
    max_tokens = []
    for token in [first, *[straddling] * 400]:
        detokenizer.step(token)
        max_tokens.append(decoder.max_tokens)
    assert max_tokens[-1] == max_tokens[100]
