"""Requests whose output lengths follow from their prompts, with some noise."""

from __future__ import annotations

import numpy as np

from tdpipe.prediction.features import PromptFeatures, feature_vector
from tdpipe.prediction.tenant_history import TenantHistory
from tdpipe.prediction.text_features import extract_text_features
from tdpipe.prediction.training_rows import TrainingRows


def prompt_of(number: int) -> str:
    return f"Write an essay of {number} words."


def features_of(number: int, max_tokens: int) -> PromptFeatures:
    return PromptFeatures(10, max_tokens, text=extract_text_features(prompt_of(number)))


def essays(count: int, seed: int, max_tokens: int = 4096) -> TrainingRows:
    """Essays of 5 to 400 words, each word one token give or take a fifth, cut off at `max_tokens`."""
    random = np.random.default_rng(seed)
    numbers = random.integers(5, 401, size=count)
    tokens = np.maximum(np.rint(numbers * random.normal(1.0, 0.2, size=count)), 1).astype(np.int64)
    tenants = TenantHistory()
    vectors = np.stack([feature_vector(features_of(int(n), max_tokens), tenants) for n in numbers])
    lengths = np.minimum(tokens, max_tokens)
    return TrainingRows(vectors, lengths, tokens < max_tokens, np.full(count, max_tokens))
