from __future__ import annotations

import pickle

import pytest

from tdpipe.core.errors import ModelError, PipelineError, RequestError, SettingsError, TDPipeError


@pytest.mark.parametrize(
    "error",
    [
        SettingsError("--trace", "no such file", "give a CSV file"),
        RequestError("too long", "max_tokens"),
        ModelError("no weights"),
        PipelineError("stage 1 died"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling(error: TDPipeError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
