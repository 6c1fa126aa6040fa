"""One stage's layers as two functions: hidden states in and out, and logits at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tdpipe.model.seam import PagedContext, Passthrough

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.model.attention import AttentionBackend, BatchLayout
    from tdpipe.model.kv_cache import KVCache


class StageModel:
    """Layers of a loaded stage.

    Args:
        module: a loaded `stage_class`.
        layers: the stage's layers, numbered over the whole model.
        attention: how its layers attend.
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
        # Only rows to be sampled need the final norm, so it goes with the head.
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
        """Run the stage's layers over a batch, whose keys and values go into `kv`.

        Args:
            layout: of the batch's T tokens.
            kv: the stage's cache.
            positions: [T] of each token in its sequence.
            token_ids: [T] on the first stage, else None.
            hidden: [T, hidden_size] from the stage before; None on the first.

        Returns:
            [T, hidden_size], before the final norm.
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
        """Compute [K, vocab_size] float32 logits from [K, hidden_size] rows of the last stage's body."""
        logits: Tensor = self._head(self._norm(hidden)).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits
