from __future__ import annotations

import pytest

from tdpipe.controller.told_lengths import ToldLengths
from tdpipe.core.lengths import LengthDistribution
from tdpipe.prediction.features import PromptFeatures

FEATURES = PromptFeatures(10, 100)


def test_each_request_has_what_was_told_of_it_and_no_other_s() -> None:
    told = ToldLengths()
    for length in (7, 3):
        told.tell(LengthDistribution((length,)))
        assert told.predict(FEATURES).outcomes == (length,)
    with pytest.raises(LookupError):
        told.predict(FEATURES)
