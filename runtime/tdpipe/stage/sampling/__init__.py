"""Draws tokens from logits on the last stage.

Everything is a function of a row's own logits, tokens and parameters, so a request's tokens do not
depend on what else is in the batch.
"""

from tdpipe.stage.sampling.sampler import Sampler

__all__ = ["Sampler"]
