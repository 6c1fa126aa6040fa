"""Requests whose output lengths follow from their prompts, but for some noise."""

from __future__ import annotations

import numpy as np

from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.input_vector import input_vector
from tdpipe.prediction.tenants import TenantHistory
from tdpipe.prediction.text_numbers import describe_text
from tdpipe.prediction.training_rows import TrainingRows


def prompt_of(number: int) -> str:
    return f"Write an essay of {number} words."


def features_of(number: int, bound: int) -> PromptFeatures:
    return PromptFeatures(10, bound, text=describe_text(prompt_of(number)))


def essays(count: int, seed: int, bound: int = 4096) -> TrainingRows:
    """Essays of 5 to 400 words: as many tokens, a fifth more or less, cut off at the bound."""
    random = np.random.default_rng(seed)
    numbers = random.integers(5, 401, size=count)
    tokens = np.maximum(np.rint(numbers * random.normal(1.0, 0.2, size=count)), 1).astype(np.int64)
    tenants = TenantHistory()
    vectors = np.stack([input_vector(features_of(int(n), bound), tenants) for n in numbers])
    lengths = np.minimum(tokens, bound)
    return TrainingRows(vectors, lengths, tokens < bound, np.full(count, bound))
