"""Tiny random checkpoints of every family, and what transformers itself generates from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = 256
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "llama-rope": ("Llama", {"rope_parameters": _LLAMA3}),
    "llama-yarn": ("Llama", {"rope_parameters": _YARN}),
    "mistral": ("Mistral", {"sliding_window": 9}),
    "mistral-full": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-sliding": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3", {}),
    "gemma2": (
        "Gemma2",
        {
            "sliding_window": 8,
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 8.0,
        },
    ),
}
"""Name of each kind: transformers' family and what differs from the common shape."""


def tiny_checkpoint(path: Path, kind: str = "llama", *, seed: int = 0, **changes: object) -> Path:
    """Write a float32 checkpoint of random weights into `path` and return it.

    Args:
        path: a directory, made if need be.
        kind: one of `KINDS`.
        seed: of the weights.
        changes: other config values than the kind's.
    """
    family, own = KINDS[kind]
    values = {**_COMMON, **own, **changes}
    if family == "Qwen2":
        del values["head_dim"]  # always hidden_size / heads there
    config = getattr(transformers, f"{family}Config")(**values)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        # Biases and norms start as constants, which would hide their absence.
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1 * (2 if "bias" in name else 1))
        if config.tie_word_embeddings:
            # Else the last token's own embedding is so large in the result that it repeats itself.
            model.model.embed_tokens.weight.mul_(0.1)
            model.model.norm.weight.add_(9.0)
    model.float().save_pretrained(path)
    return path


class Reference:
    """A checkpoint as transformers alone runs it: float32, one sequence at a time."""

    def __init__(self, path: Path) -> None:
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self._model.generation_config.eos_token_id = None

    def generate(self, prompt: list[int], count: int) -> list[int] | None:
        """`count` greedy tokens, whatever EOS they have; None where two tokens are nearly tied, so
        that rounding could decide between them.
        """
        output = self._model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=count,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for logits in output.logits:
            best = logits[0].topk(2).values
            if best[0] - best[1] < 1e-3:
                return None
        tokens: list[int] = output.sequences[0, len(prompt) :].tolist()
        return tokens

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """[len(tokens), V] float32 logits after each token."""
        with torch.inference_mode():
            result: torch.Tensor = self._model(torch.tensor([tokens])).logits[0]
        return result

    def prompts(self, lengths: list[int], count: int, seed: int = 0) -> list[Example]:
        """Random prompts of these lengths with their `count` greedy tokens, none of them near a
        tie.
        """
        random = torch.Generator().manual_seed(seed)
        examples = []
        for length in lengths:
            output = None
            while output is None:
                prompt = torch.randint(3, VOCABULARY, (length,), generator=random).tolist()
                output = self.generate(prompt, count)
            examples.append((prompt, output))
        return examples


Example = tuple[list[int], list[int]]
"""A prompt and its greedy output."""
