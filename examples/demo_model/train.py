"""Train the demo model from scratch on generated questions.

Run from the repository root: `python -m examples.demo_model.train`. No data is read; the seed
determines the questions, their order and the initial weights.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict, deque
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from examples.demo_model.dialogue import IGNORED, Dialogue, DialogueStream
from examples.demo_model.tokenizer import CHECKPOINT, MAX_POSITIONS, build_tokenizer
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POOL_DIALOGUES = 2048  # number of dialogues that are sorted by length together
_WARMUP_STEPS = 100
_LOG_INTERVAL_STEPS = 100


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the config of a Llama of 1.1 million parameters.

    Its six layers divide evenly into two or three stages.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def batches(stream: DialogueStream, tokens: int, seed: int) -> Iterator[list[Dialogue]]:
    """Group dialogues of similar length into batches of about `tokens` padded tokens."""
    rng = Random(f"{seed}:batches")
    source = iter(stream)
    while True:
        pool = sorted(
            (next(source) for _ in range(_POOL_DIALOGUES)), key=lambda item: len(item.ids)
        )
        groups: list[list[Dialogue]] = [[]]
        for dialogue in pool:
            if (len(groups[-1]) + 1) * len(dialogue.ids) > tokens:
                groups.append([])
            groups[-1].append(dialogue)
        rng.shuffle(groups)
        yield from groups


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Stack rows as int64 [rows, longest], padded on the right, which causal attention never sees."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to 0."""
    if step < _WARMUP_STEPS:
        return peak * (step + 1) / _WARMUP_STEPS
    done = (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Build Muon for the layers' matrices and AdamW for the embedding and the norms.

    Muon's updates are scaled to the size of AdamW's, so both use the same learning rate.
    """
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    known = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in known]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    ]


class Progress:
    """Share of recent dialogues, by task, in which every answer token was the most likely one.

    The questions are new at each step, so this equals the exact-match rate of greedy decoding.
    """

    def __init__(self) -> None:
        self._right: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=1000))

    def add(self, batch: list[Dialogue], logits: torch.Tensor, labels: torch.Tensor) -> None:
        right = ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(-1).tolist()
        for dialogue, is_right in zip(batch, right, strict=True):
            self._right[dialogue.task].append(is_right)

    def __str__(self) -> str:
        shares = {task: sum(seen) / len(seen) for task, seen in sorted(self._right.items())}
        return " ".join(f"{task} {share:.3f}" for task, share in shares.items())


def train(arguments: argparse.Namespace) -> LlamaForCausalLM:
    """Train with Muon and AdamW on a cosine schedule and print the progress."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(build_config(tokenizer))
    forward: Callable[..., Any] = torch.compile(model, dynamic=True)
    optimizers = build_optimizers(model)
    progress = Progress()
    start = time.monotonic()
    source = batches(DialogueStream(tokenizer, arguments.seed), arguments.tokens, arguments.seed)
    for step, batch in zip(range(arguments.steps), source, strict=False):
        ids = pad([item.ids for item in batch], tokenizer.pad_token_id)
        labels = pad([item.labels for item in batch], IGNORED)[:, 1:]
        # Right padding needs no mask, because no token attends to later ones.
        logits: torch.Tensor = forward(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, arguments.steps, arguments.peak)
            optimizer.step()
            optimizer.zero_grad()
        progress.add(batch, logits, labels)
        if (step + 1) % _LOG_INTERVAL_STEPS == 0:
            seconds = time.monotonic() - start
            print(f"step {step + 1} {seconds:.0f}s loss {loss:.4f} {progress}", flush=True)
    return model


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the checkpoint and the tokenizer's files for use with `from_pretrained`."""
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train the model and save it; see `--help`."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument(
        "--tokens", type=int, default=4096, help="number of padded tokens per batch"
    )
    parser.add_argument("--peak", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    arguments = parser.parse_args()
    save(train(arguments), arguments.out)


if __name__ == "__main__":
    main()
