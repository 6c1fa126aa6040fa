from __future__ import annotations

import pytest
import torch
import transformers

from tdpipe.model.support import FAMILIES
from tdpipe.model.transformers_adapter import ATTENTION_NAME, attend, stage_class


def attention_call(**keywords: object) -> None:
    part = torch.zeros(1, 2, 3, 4)
    attend(torch.nn.Module(), part, part, part, scaling=1.0, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "keywords",
    [
        {"attention_mask": None, "s_aux": torch.zeros(2)},
        {"attention_mask": None, "position_bias": torch.zeros(1)},
        {"attention_mask": torch.zeros(1, 1, 3, 3)},
    ],
)
def test_attention_that_no_backend_computes_is_refused(keywords: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="which no backend computes"):
        attention_call(paged=None, **keywords)


def test_transformers_builds_no_mask_for_this_attention() -> None:
    assert ATTENTION_NAME in transformers.AttentionInterface._global_mapping
    assert ATTENTION_NAME not in transformers.AttentionMaskInterface._global_mapping


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_a_class_of_transformers(family: str) -> None:
    Stage = stage_class(family, range(1), first=True, last=True)  # noqa: N806 - a class
    assert Stage.config_class.model_type == family
