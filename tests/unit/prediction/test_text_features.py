from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from tdpipe.prediction.text_features import (
    TEXT_FEATURE_NAMES,
    extract_text_features,
    unknown_text_features,
)


def named_features(text: str) -> dict[str, float]:
    return dict(zip(TEXT_FEATURE_NAMES, extract_text_features(text).tolist(), strict=True))


@pytest.mark.parametrize(
    "text", ["", " \n", "?", "ab", "\ud800 \x00", "日本語 🙂", "7" * 5000, "a b\n" * 9999]
)
def test_any_text_has_finite_features(text: str) -> None:
    features = extract_text_features(text)
    assert features.shape == unknown_text_features().shape == (len(TEXT_FEATURE_NAMES),)
    assert np.isfinite(features).all()


def test_the_numbers_in_the_last_line_are_features() -> None:
    features = named_features("Of 99 things:\nCount from 4 to 11, please.")
    assert features["first_number"] == pytest.approx(math.log1p(4))
    assert features["last_number"] == pytest.approx(math.log1p(11))
    assert features["last_numbers_apart"] == pytest.approx(math.log1p(7))
    assert features["last_line_numbers"] == pytest.approx(math.log1p(2))
    assert features["ends_as_sentence"] == 1


def test_only_head_and_tail_of_a_long_text_are_read() -> None:
    def long(head: str, middle: str, tail: str) -> list[float]:
        return extract_text_features(head + "x " * 1000 + middle + "x " * 1000 + tail).tolist()

    usual = long("Spell. ", "one", " Now.")
    assert long("Spell. ", "two", " Now.") == usual
    assert long("Count. ", "one", " Now.") != usual
    assert long("Spell. ", "one", " Yes.") != usual


def test_hashed_words_depend_neither_on_case_nor_on_the_process() -> None:
    code = (
        "from tdpipe.prediction.text_features import extract_text_features\n"
        "print(extract_text_features('Reverse the list.').tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert run.stdout.strip() == str(extract_text_features("Reverse the list.").tolist())
    first = [name for name in TEXT_FEATURE_NAMES if name.startswith("first_words")]
    assert [named_features("REVERSE it")[name] for name in first] == [
        named_features("reverse it")[name] for name in first
    ]
    assert [named_features("spell it")[name] for name in first] != [
        named_features("reverse it")[name] for name in first
    ]
