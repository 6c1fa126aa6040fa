"""The adapter to transformers, whose models attend over the paged KV cache and are cut into stages.

Everything that depends on the internals of transformers' models is here. Attention is registered in the library's own
registry, and what it needs of a step is a keyword argument of the model's call, so stages in threads of one process
share no global state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import transformers
from torch import nn

from tdpipe.model.support import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.model.attention import AttentionBackend, BatchLayout
    from tdpipe.model.kv_cache import KVCache

ATTENTION_NAME = "tdpipe"
"""Name of the attention function in transformers' registry. No mask function is registered under this name, so
transformers builds no mask."""
_IGNORED_KEYWORDS = frozenset({"dropout", "position_ids", "use_cache", "is_causal"})
"""Keyword arguments that do not affect the result of causal inference over a paged cache."""


@dataclass(frozen=True, slots=True)
class PagedContext:
    """The inputs of attention in addition to a layer's queries, keys and values."""

    layout: BatchLayout
    kv: KVCache
    backend: AttentionBackend


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    paged: PagedContext,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **keywords: object,
) -> tuple[Tensor, None]:
    """Compute attention for a layer of transformers, with the signature that its registry expects.

    Args:
        module: the layer's attention module.
        query: [1, heads, T, head_dim].
        key: [1, kv_heads, T, head_dim].
        value: same shape as `key`.
        attention_mask: must be None.
        paged: the batch, the KV cache and the backend.
        scaling: factor of the scores.
        sliding_window: number of keys that a query sees, including its own; None for all.
        softcap: bound of the scaled scores; None for no bound.
        **keywords: other arguments of the layer.

    Returns:
        [1, T, heads, head_dim] in the dtype of `query`, and None in place of attention weights.

    Raises:
        TypeError: the layer needs something that backends do not compute.
    """
    if attention_mask is not None or not _IGNORED_KEYWORDS.issuperset(keywords):
        unknown = sorted(keywords.keys() - _IGNORED_KEYWORDS)
        names = unknown if attention_mask is None else ["attention_mask", *unknown]
        raise TypeError(f"a layer passes {', '.join(names)}, which no backend computes")
    output = paged.backend.attend(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        paged.kv.layer(module.layer_idx),  # type: ignore[arg-type]
        paged.layout,
        scale=scaling,
        sliding_window=sliding_window,
        softcap=softcap,
    )
    return output.unsqueeze(0), None


transformers.AttentionInterface.register(ATTENTION_NAME, attend)


class Passthrough(nn.Module):
    """A module without parameters in place of another stage's layer. It returns its first input."""

    def forward(self, hidden: Tensor, *_: object, **__: object) -> Tensor:
        return hidden


def stage_class(family: str, layers: range, *, first: bool, last: bool) -> type[Any]:
    """Return a class of the family's model that has only the modules of one stage.

    Loading it reads only the stage's tensors from the checkpoint.

    Args:
        family: one of `FAMILIES`.
        layers: the stage's layers, numbered over the whole model.
        first: whether the stage embeds tokens.
        last: whether the stage has the final norm and the head.
    """
    whole: type[Any] = getattr(transformers, FAMILIES[family])

    class Stage(whole):  # type: ignore[misc] # transformers is untyped
        # The checkpoint has the tensors of the other stages too.
        _keys_to_ignore_on_load_unexpected = (".*",)

        def __init__(self, config: Any) -> None:  # noqa: ANN401 - transformers' config
            super().__init__(config)
            body = self.model
            for number in range(len(body.layers)):
                if number not in layers:
                    body.layers[number] = Passthrough()
            # A tied head has no tensor of its own in the checkpoint, but uses that of the embedding.
            if not first and not (last and config.tie_word_embeddings):
                body.embed_tokens = Passthrough()
            if not last:
                body.norm = Passthrough()
                self.lm_head = Passthrough()
                self.all_tied_weights_keys: dict[str, str] = {}

    return Stage
