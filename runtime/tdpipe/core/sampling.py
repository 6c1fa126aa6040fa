"""Sampling parameters, as the last stage needs them, and log-probabilities, as it returns them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters of one request. The defaults are greedy decoding without penalties."""

    temperature: float = 0.0
    """Divisor of the logits; 0 is greedy decoding."""
    top_k: int = 0
    """Number of most likely tokens that are kept; 0 keeps all."""
    top_p: float = 1.0
    """Probability that the kept tokens sum to at least; the smallest set of most likely tokens is kept."""
    min_p: float = 0.0
    """Minimum probability of a kept token, as a share of that of the most likely token."""
    repetition_penalty: float = 1.0
    """Divisor of positive logits, and factor of negative ones, of tokens in prompt or output; 1 is off."""
    presence_penalty: float = 0.0
    """Number that is subtracted from the logits of tokens that the output already has."""
    frequency_penalty: float = 0.0
    """Number that is subtracted from a token's logit once per occurrence in the output."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token and the number that is added to its logit."""
    seed: int = 0
    """Seed of the draws, which depend on it and on the token's position alone, never on the batch."""
    logprobs: int | None = None
    """Number of most likely tokens whose log-probabilities are returned with the sampled token's; None returns none."""

    def for_choice(self, choice: int) -> SamplingParams:
        """Return the parameters of one of several outputs of a call, each of which draws for itself.

        Args:
            choice: number of the output; 0 keeps the seed, so that a call for one output gets the
                first of several.
        """
        if choice == 0:
            return self
        digest = blake2b(f"{self.seed}/{choice}".encode(), digest_size=8).digest()
        return replace(self, seed=int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one sampled position, of the distribution before temperature and filters."""

    logprob: float
    """Natural logarithm of the sampled token's probability."""
    top_tokens: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()
