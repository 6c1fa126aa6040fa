from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from tdpipe.prediction.text_numbers import TEXT_INPUTS, describe_text, no_text


def told(text: str) -> dict[str, float]:
    return dict(zip(TEXT_INPUTS, describe_text(text).tolist(), strict=True))


@pytest.mark.parametrize(
    "text", ["", " \n", "?", "ab", "\ud800 \x00", "日本語 🙂", "7" * 5000, "a b\n" * 9999]
)
def test_any_text_has_finite_numbers(text: str) -> None:
    numbers = describe_text(text)
    assert numbers.shape == no_text().shape == (len(TEXT_INPUTS),)
    assert np.isfinite(numbers).all()


def test_the_numbers_that_the_last_line_names_are_told() -> None:
    numbers = told("Of 99 things:\nCount from 4 to 11, please.")
    assert numbers["first_number"] == pytest.approx(math.log1p(4))
    assert numbers["last_number"] == pytest.approx(math.log1p(11))
    assert numbers["last_numbers_apart"] == pytest.approx(math.log1p(7))
    assert numbers["last_line_numbers"] == pytest.approx(math.log1p(2))
    assert numbers["ends_as_sentence"] == 1


def test_of_a_long_text_head_and_tail_are_read() -> None:
    def long(head: str, middle: str, tail: str) -> list[float]:
        return describe_text(head + "x " * 1000 + middle + "x " * 1000 + tail).tolist()

    usual = long("Spell. ", "one", " Now.")
    assert long("Spell. ", "two", " Now.") == usual
    assert long("Count. ", "one", " Now.") != usual
    assert long("Spell. ", "one", " Yes.") != usual


def test_words_are_told_apart_by_neither_case_nor_process() -> None:
    code = (
        "from tdpipe.prediction.text_numbers import describe_text\n"
        "print(describe_text('Reverse the list.').tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert run.stdout.strip() == str(describe_text("Reverse the list.").tolist())
    first = [name for name in TEXT_INPUTS if name.startswith("first_words")]
    assert [told("REVERSE it")[name] for name in first] == [
        told("reverse it")[name] for name in first
    ]
    assert [told("spell it")[name] for name in first] != [
        told("reverse it")[name] for name in first
    ]
