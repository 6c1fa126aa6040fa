"""The seam to transformers: how its modeling code attends over our KV cache and becomes a stage.

Everything that depends on the inside of transformers' models is here. Attention is handed in by the
library's own registry, and what it needs of a step travels as a keyword of the model's call, so
stages in threads of one process do not meet in a global.
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

ATTENTION = "tdpipe"
"""Name of the attention function in transformers' registry. No mask function has this name, so
none is built."""
_IGNORED_KEYWORDS = frozenset({"dropout", "position_ids", "use_cache", "is_causal"})
"""Keywords that have no effect on the result of causal inference over a paged cache."""


@dataclass(frozen=True, slots=True)
class PagedContext:
    """Input of attention besides a layer's queries, keys and values."""

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
    **ignored: object,
) -> tuple[Tensor, None]:
    """Attention function of transformers' layers: [1, heads, T, head_dim] in, [1, T, heads, head_dim] out.

    Raises:
        TypeError: a layer asks for something that backends do not compute.
    """
    if attention_mask is not None or not _IGNORED_KEYWORDS.issuperset(ignored):
        raise TypeError(f"attention asks for {sorted(ignored)}, which no backend computes")
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


transformers.AttentionInterface.register(ATTENTION, attend)


class Passthrough(nn.Module):
    """Replaces a layer of another stage: it has no parameters and returns its first input."""

    def forward(self, hidden: Tensor, *_: object, **__: object) -> Tensor:
        return hidden


def stage_class(family: str, layers: range, *, first: bool, last: bool) -> type[Any]:
    """Create the class of the family's model that has only one stage's parts.

    Loading it reads from the checkpoint what the stage owns and nothing else.

    Args:
        family: one of `FAMILIES`.
        layers: the stage's layers.
        first: it embeds tokens.
        last: it holds the final norm and the head.
    """
    whole: type[Any] = getattr(transformers, FAMILIES[family])

    class Stage(whole):  # type: ignore[misc] # transformers is untyped
        # The other stages' tensors are no surprise.
        _keys_to_ignore_on_load_unexpected = (".*",)

        def __init__(self, config: Any) -> None:  # noqa: ANN401 - transformers' config
            super().__init__(config)
            body = self.model
            for number in range(len(body.layers)):
                if number not in layers:
                    body.layers[number] = Passthrough()
            # A tied head has no tensor of its own in the checkpoint but takes the embedding's.
            if not first and not (last and config.tie_word_embeddings):
                body.embed_tokens = Passthrough()
            if not last:
                body.norm = Passthrough()
                self.lm_head = Passthrough()
                self.all_tied_weights_keys: dict[str, str] = {}

    return Stage
