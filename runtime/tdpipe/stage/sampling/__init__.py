"""Drawing tokens from logits on the last stage.

Each token is a function of its own row's logits, history and parameters, so a request's tokens do not depend on what
else is in the batch.
"""

from tdpipe.stage.sampling.sampler import Sampler

__all__ = ["Sampler"]
