"""Loading of one stage's weights.

Every stage reads only its own tensors, so stages of one model can load at once on machines that hold none of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.utils.logging import disable_progress_bar

from tdpipe.core.errors import ModelError
from tdpipe.model.packed_linear import pack_linears
from tdpipe.model.stage_model import StageModel
from tdpipe.model.transformers_adapter import ATTENTION_NAME, stage_class

if TYPE_CHECKING:
    import torch

    from tdpipe.model.attention import AttentionBackend
    from tdpipe.model.description import ModelDescription


def load_stage(
    description: ModelDescription,
    layers: range,
    *,
    first: bool,
    last: bool,
    dtype: torch.dtype,
    device: torch.device,
    attention: AttentionBackend,
) -> StageModel:
    """Read the tensors of one stage from the checkpoint's safetensors.

    Args:
        description: description of the checkpoint.
        layers: the stage's layers, numbered over the whole model.
        first: whether the stage embeds tokens.
        last: whether the stage has the final norm and the head.
        dtype: type that the weights are converted to.
        device: device that the weights are put on.
        attention: attention backend of the layers.

    Raises:
        ModelError: a tensor is missing or has another shape than config.json says, or a file is
            broken. transformers would continue with random weights in some of these cases.
    """
    disable_progress_bar()  # stages share a terminal, where their bars would overwrite one another
    Stage = stage_class(description.family, layers, first=first, last=last)  # noqa: N806 - a class
    try:
        module, loaded = Stage.from_pretrained(
            description.path,
            attn_implementation=ATTENTION_NAME,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors, transformers and the system raise many types
        problem = " ".join(str(error).split())
        raise ModelError(
            f"model.path: {description.path} cannot be loaded: {problem}; copy the checkpoint again"
        ) from error
    for fault in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(str(each) for each in loaded.get(fault) or ()):
            raise ModelError(
                f"model.path: {description.path} has {fault.replace('_', ' ')}: "
                f"{', '.join(found[:3])} ({len(found)} in all); copy the checkpoint again"
            )
    module.to(device).eval().requires_grad_(requires_grad=False)
    pack_linears(module)
    return StageModel(module, layers, attention)
