from __future__ import annotations

import pytest

from tdpipe.core.lengths import LengthDistribution
from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.fixed_lengths import FixedLengths

FEATURES = PromptFeatures(10, 100)


def test_each_request_gets_the_lengths_set_before_it() -> None:
    predictor = FixedLengths()
    with pytest.raises(LookupError, match="lengths is not set"):
        predictor.predict(FEATURES)
    for length in (7, 3):
        predictor.lengths = LengthDistribution((length,))
        assert predictor.predict(FEATURES).outcomes == (length,)


def test_nothing_is_learned_from_finished_requests() -> None:
    predictor = FixedLengths(LengthDistribution((7,)))
    predictor.observe(FEATURES, 3, complete=True)
    assert predictor.predict(FEATURES).outcomes == (7,)
    assert predictor.version == 0
