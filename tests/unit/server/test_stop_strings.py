from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tdpipe.server.stop_strings import StopStrings

letters = st.text("abc", max_size=12)
stop_lists = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Shortest prefix of `text` that ends in a stop string, without the longest such stop string."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(pieces=st.lists(letters, max_size=6), stops=stop_lists)
def test_the_first_completed_stop_string_is_found_however_the_text_is_cut(
    pieces: list[str], stops: list[str]
) -> None:
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


@given(pieces=st.lists(letters, max_size=6), stops=stop_lists)
def test_only_what_may_begin_a_stop_string_is_held_back(
    pieces: list[str], stops: list[str]
) -> None:
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
