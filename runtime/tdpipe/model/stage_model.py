"""The layers of one stage as two functions: hidden states from hidden states, and logits from hidden states.

Apart from the loader, this is the only code that calls transformers' models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tdpipe.model.transformers_adapter import PagedContext, Passthrough

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.model.attention import AttentionBackend, BatchLayout
    from tdpipe.model.kv_cache import KVCache


class StageModel:
    """The loaded layers of one stage.

    Args:
        module: a loaded instance of a `stage_class`.
        layers: the stage's layers, numbered over the whole model.
        attention: attention backend of the layers.
    """

    def __init__(self, module: Any, layers: range, attention: AttentionBackend) -> None:  # noqa: ANN401
        self.layers = layers
        self.hidden_size: int = module.config.hidden_size
        self.vocab_size: int = module.config.vocab_size
        self.device: torch.device = module.device
        self.dtype: torch.dtype = module.dtype
        self._body = module.model
        self._attention = attention
        self._head = module.lm_head
        self._softcap: float | None = getattr(module.config, "final_logit_softcapping", None)
        # Only tokens that are sampled from need the final norm, so the head applies it.
        self._norm = self._body.norm
        self._body.norm = Passthrough()

    @torch.inference_mode()
    def body(
        self,
        layout: BatchLayout,
        kv: KVCache,
        positions: Tensor,
        *,
        token_ids: Tensor | None,
        hidden: Tensor | None,
    ) -> Tensor:
        """Compute the stage's layers over a batch and store its keys and values in `kv`.

        Args:
            layout: layout of the batch's T tokens.
            kv: the stage's KV cache.
            positions: [T] int32 position of each token in its sequence.
            token_ids: [T] int32 on the first stage, else None.
            hidden: [T, hidden_size] from the previous stage; None on the first stage.

        Returns:
            [T, hidden_size] hidden states before the final norm.
        """
        output = self._body(
            input_ids=None if token_ids is None else token_ids.unsqueeze(0),
            inputs_embeds=None if hidden is None else hidden.unsqueeze(0),
            position_ids=positions.unsqueeze(0),
            use_cache=False,
            paged=PagedContext(layout, kv, self._attention),
        )
        states: Tensor = output.last_hidden_state[0]
        return states

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
        """Return [K, vocab_size] float32 logits of [K, hidden_size] outputs of the last stage's `body`."""
        logits: Tensor = self._head(self._norm(hidden)).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits
