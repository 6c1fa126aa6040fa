from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.server.stop_strings import StopStrings

stop_lists = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Pieces of a text that holds a stop string, which the cuts go through, and the stop strings."""
    stops = draw(st.lists(st.text("abc", min_size=2, max_size=4), min_size=1, max_size=4))
    before, after = draw(st.text("abc", max_size=8)), draw(st.text("abc", max_size=4))
    stop = draw(st.sampled_from(stops))
    text = before + stop + after
    within = draw(st.integers(len(before) + 1, len(before) + len(stop) - 1))
    cuts = {within, *draw(st.lists(st.integers(0, len(text)), max_size=5))}
    ends = [0, *sorted(cuts), len(text)]
    return [text[a:b] for a, b in pairwise(ends)], stops


letters = st.text("abc", max_size=12)
cases = cut_texts() | st.tuples(st.lists(letters, max_size=6), stop_lists)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Shortest prefix of `text` that ends in a stop string, without the longest such stop string."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(case=cases)
def test_the_first_completed_stop_string_is_found_however_the_text_is_cut(
    case: tuple[list[str], list[str]],
) -> None:
    pieces, stops = case
    matcher = StopStrings(stops)
    shown, stopped = "", False
    for piece in pieces:
        text, stopped = matcher.feed(piece)
        shown += text
        if stopped:
            break
    else:
        shown += matcher.flush()
    assert (shown, stopped) == naive("".join(pieces), stops)


@given(case=cases)
def test_only_what_may_begin_a_stop_string_is_held_back(
    case: tuple[list[str], list[str]],
) -> None:
    pieces, stops = case
    matcher = StopStrings(stops)
    shown, seen = "", ""
    for piece in pieces:
        text, stopped = matcher.feed(piece)
        shown, seen = shown + text, seen + piece
        if stopped:
            return
        held = seen[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_without_stop_strings_everything_is_shown_at_once() -> None:
    assert StopStrings(()).feed("abc") == ("abc", False)


@pytest.mark.parametrize(
    ("stops", "shown"),
    [
        (["abca", "b"], "xa"),  # the longer one starts first, but is complete last
        (["bc", "abc"], "x"),  # both are complete at the same character
    ],
)
def test_the_stop_string_that_is_complete_first_wins_and_then_the_longest(
    stops: list[str], shown: str
) -> None:
    assert StopStrings(stops).feed("xabca") == (shown, True)


def test_a_stop_string_is_found_whose_start_follows_part_of_another_start() -> None:
    matcher = StopStrings(["ababc"])
    assert matcher.feed("aaba") == ("a", False)
    assert matcher.feed("bc") == ("", True)


def test_text_after_a_stop_string_is_never_shown() -> None:
    matcher = StopStrings(["bc"])
    assert matcher.feed("ab") == ("a", False)
    assert matcher.feed("cbb") == ("", True)
    assert matcher.flush() == ""


def test_text_that_was_held_back_is_returned_once() -> None:
    matcher = StopStrings(["bc"])
    matcher.feed("ab")
    assert matcher.flush() == "b"
    assert matcher.flush() == ""
