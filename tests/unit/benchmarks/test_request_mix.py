from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks.request_mix import make_requests, mix_lengths, scarce_kv_tokens

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def test_lengths_of_a_trace_are_divided_by_four_and_long_prompts_are_left_out(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "lengths.csv"
    trace.write_text("num_prefill_tokens,num_decode_tokens\n400,2\n1024,81\n1025,8\n")
    assert sorted(mix_lengths(trace, 2, seed=0)) == [(100, 1), (256, 20)]
    with pytest.raises(SettingsError, match=r"^--requests: 3 wanted"):
        mix_lengths(trace, 3, seed=0)


def test_without_a_trace_lengths_are_synthetic_and_depend_on_the_seed() -> None:
    lengths = mix_lengths(None, 50, seed=1)
    assert lengths == mix_lengths(None, 50, seed=1)
    assert lengths != mix_lengths(None, 50, seed=2)
    assert max(prompt for prompt, _ in lengths) <= 256


def test_requests_have_the_drawn_lengths_and_the_kv_cache_holds_only_some_of_them() -> None:
    requests = make_requests([(3, 7), (5, 5)], vocabulary=11, seed=0)
    assert [(len(each.prompt), each.output_tokens) for each in requests] == [(3, 7), (5, 5)]
    assert all(0 <= token < 11 for each in requests for token in each.prompt)
    assert scarce_kv_tokens([(3, 7), (5, 5)]) == 8
