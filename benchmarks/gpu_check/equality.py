"""Whether a family's output on this device is that of transformers, however many stages share the device.

In float32 every greedy token must be equal. In bfloat16 rounding may decide between tokens; there the log-probabilities
must be about as near to float32 as those that transformers computes in bfloat16 for the same tokens.
"""

from __future__ import annotations

import statistics
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import transformers
from tests.support.checkpoints import Reference, tiny_checkpoint

from benchmarks.gpu_check.engine_run import Generated, generate
from benchmarks.gpu_check.part import Finding, reason_of
from tdpipe.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.checkpoints import Example

    from benchmarks.gpu_check.context import CheckContext

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2")
STAGES = (1, 2, 4)
_TOP_TOKENS = 5
"""Likeliest tokens of each position whose log-probabilities are compared."""
_MAX_ERROR_RATIO = 2.0
"""Bound of the mean error of the log-probabilities, as a multiple of transformers' own mean error."""
_MIN_ERROR_BOUND = 0.01
"""Added to the bound, because transformers may happen to be almost exact."""


class DifferentOutputError(Exception):
    """The output is not that of transformers."""


class FamilyEquality:
    """The comparisons of one family. The checkpoint is tiny and made on the spot.

    Args:
        context: of the check.
        family: one of `FAMILIES`.
    """

    def __init__(self, context: CheckContext, family: str) -> None:
        self._context = context
        self._family = family

    @cached_property
    def _checkpoint(self) -> Path:
        return tiny_checkpoint(self._context.scratch / self._family, self._family)

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self._checkpoint)

    @cached_property
    def _examples(self) -> list[Example]:
        scale = self._context.scale
        return self._reference.prompts(list(scale.prompts), scale.outputs)

    def check_float32(self) -> Finding:
        """Compare the greedy tokens of several prompts, which the stages compute in shared batches.

        Raises:
            ExceptionGroup: a number of stages fails or gives other tokens.
        """
        compared = sum(len(output) for _, output in self._examples)
        return self._check(self._compare_tokens, f"{compared} greedy tokens equal on")

    def check_bfloat16(self) -> Finding:
        """Compare the log-probabilities of the likeliest tokens after each position of the output.

        Raises:
            ExceptionGroup: a number of stages fails or is further from float32 than allowed.
        """
        return self._check(self._compare_logprobs, "as near to float32 as transformers on")

    def _check(self, compare: Callable[[int], dict[str, object]], text: str) -> Finding:
        figures: dict[str, object] = {}
        errors = []
        for stages in STAGES:
            try:
                figures[f"{stages} stages"] = compare(stages)
            except Exception as error:
                errors.append((stages, error))
        if errors:
            reasons = (f"{stages} stages: {reason_of(error)}" for stages, error in errors)
            raise ExceptionGroup("; ".join(reasons), [error for _, error in errors])
        return Finding(f"{text} {', '.join(map(str, STAGES))} stages", figures)

    def _compare_tokens(self, stages: int) -> dict[str, object]:
        outputs = self._generate(stages, "float32")
        for number, (output, (_, expected)) in enumerate(zip(outputs, self._examples, strict=True)):
            if output.tokens != expected:
                pairs = zip(output.tokens, expected, strict=True)
                first = next(index for index, (ours, theirs) in enumerate(pairs) if ours != theirs)
                raise DifferentOutputError(
                    f"token {first} after prompt {number} is {output.tokens[first]}, "
                    f"not {expected[first]}"
                )
        return {"tokens": sum(len(output.tokens) for output in outputs)}

    def _compare_logprobs(self, stages: int) -> dict[str, object]:
        outputs = self._generate(stages, "bfloat16", _TOP_TOKENS)
        ours: list[float] = []
        theirs: list[float] = []
        for (prompt, _), output in zip(self._examples, outputs, strict=True):
            exact = _logprobs(self._reference.logits, prompt, output)
            rounded = _logprobs(self._rounded_logits, prompt, output)
            for position, each in enumerate(output.logprobs):
                tokens = list(each.top_tokens)
                right = exact[position, tokens]
                ours += (torch.tensor(each.top_logprobs) - right).abs().tolist()
                theirs += (rounded[position, tokens] - right).abs().tolist()
        own, other = statistics.mean(ours), statistics.mean(theirs)
        if own > _MAX_ERROR_RATIO * other + _MIN_ERROR_BOUND:
            raise DifferentOutputError(
                f"log-probabilities are off by {own:.3g} on average, transformers' by {other:.3g}"
            )
        return {"mean_error": own, "mean_error_of_transformers": other}

    @cached_property
    def _rounded_model(self) -> transformers.PreTrainedModel:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            self._checkpoint, dtype=torch.bfloat16, attn_implementation="eager"
        )
        return model.to(self._context.device).eval()

    def _rounded_logits(self, tokens: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=self._context.device)
            logits: torch.Tensor = self._rounded_model(ids).logits[0]
        return logits.float().cpu()

    def _generate(self, stages: int, dtype: str, logprobs: int | None = None) -> list[Generated]:
        prompts = [prompt for prompt, _ in self._examples]
        settings = self._settings(stages, dtype)
        return generate(settings, prompts, self._context.scale.outputs, logprobs)

    def _settings(self, stages: int, dtype: str) -> Settings:
        """A small cache and a small budget, so that prompts are chunked and share steps with decode."""
        device = self._context.device.type
        return load_settings(
            flags={
                "model": {
                    "path": self._checkpoint,
                    "device": device,
                    "dtype": dtype,
                    "max_context": 80,
                },
                "pipeline": {"host": "in_process", "stages": stages, "step_timeout": 30.0},
                "cache": {"block_size": 4, "blocks": 60},
                "scheduler": {"max_running": 6, "token_budget": 32},
            }
        )


def _logprobs(
    logits: Callable[[list[int]], torch.Tensor], prompt: list[int], output: Generated
) -> torch.Tensor:
    """[output tokens, V] log-probabilities before each output token."""
    after = logits([*prompt, *output.tokens[:-1]])
    return after[len(prompt) - 1 :].float().log_softmax(-1)
