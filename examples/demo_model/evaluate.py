"""Measure how often the demo model answers held-out prompts exactly right.

Run from the repository root: `python -m examples.demo_model.evaluate`. Decoding is greedy, in
float32, by plain `transformers`, so that the numbers say nothing about any other engine.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from examples.demo_model.phrasing import ends_clearly
from examples.demo_model.tasks import TASKS, Split, check, examples
from examples.demo_model.tokenizer import CHECKPOINT, MAX_POSITIONS
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

if TYPE_CHECKING:
    from examples.demo_model.tasks import Example

FORMS: tuple[str, ...] = ("chat", "second turn", "line", "sentence")
_BATCH = 50
_SEED = 1_000_003  # any: held-out questions are never trained on, whatever the seeds


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a checkpoint in the dtype that its config names, ready to generate."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def render(
    tokenizer: PreTrainedTokenizerFast, form: str, example: Example, previous: Example
) -> str:
    """The whole text before an answer, in one of `FORMS`.

    `chat` is a first message and `second turn` a message after `previous` was answered; `line` is
    raw text with a newline and `sentence` raw text without one.
    """
    if form == "line":
        return f"{tokenizer.bos_token}{example.prompt}\n"
    if form == "sentence":
        return f"{tokenizer.bos_token}{example.prompt}"
    messages = [{"role": "user", "content": example.prompt}]
    if form == "second turn":
        messages = [
            {"role": "user", "content": previous.prompt},
            {"role": "assistant", "content": previous.answer},
            *messages,
        ]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> list[str | None]:
    """Decode greedily what follows each text; None where no EOS came before the last position."""
    inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        tokens = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=min(320, MAX_POSITIONS - length),
        )
    return [
        tokenizer.decode(row, skip_special_tokens=True) if tokenizer.eos_token_id in row else None
        for row in tokens[:, length:].tolist()
    ]


def measure(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    form: str,
    asked: list[Example],
    *,
    show_wrong: bool = False,
) -> float:
    """Share of examples answered exactly and ended by EOS, each after the one before it."""
    pairs = list(zip(asked, asked[-1:] + asked[:-1], strict=True))
    pairs.sort(key=lambda pair: len(pair[0].answer))  # a batch decodes as long as its longest
    right = 0
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        texts = [render(tokenizer, form, example, previous) for example, previous in batch]
        for (example, _), answer in zip(batch, answers(model, tokenizer, texts), strict=True):
            is_right = answer is not None and check(example.prompt, answer)
            right += is_right
            if show_wrong and not is_right:
                print(f"wrong, {form}: {example.prompt!r} -> {answer!r}")
    return right / len(pairs)


def main() -> None:
    """Print a table of exact matches and write it as JSON; see `--help`."""
    parser = argparse.ArgumentParser(description="Measure the demo model on held-out prompts.")
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument("--prompts", type=int, default=500, help="prompts of each task and form")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "accuracy.json")
    parser.add_argument("--show-wrong", action="store_true", help="print the wrong answers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load(arguments.checkpoint)
    accuracy: dict[str, dict[str, float]] = {}
    print("".join(f"{name:>13}" for name in ("task", *FORMS)))
    for task in TASKS:
        accuracy[task] = {}
        for form in FORMS:
            source = examples(task, Split.HELD_OUT, arguments.seed)
            if form == "sentence":
                source = (example for example in source if ends_clearly(example.prompt))
            asked = list(islice(source, arguments.prompts))
            accuracy[task][form] = measure(
                model, tokenizer, form, asked, show_wrong=arguments.show_wrong
            )
        print(f"{task:>13}" + "".join(f"{share:13.3f}" for share in accuracy[task].values()))
    report = {
        "command": shlex.join(["python", "-m", "examples.demo_model.evaluate", *sys.argv[1:]]),
        "seed": arguments.seed,
        "prompts_per_task_and_form": arguments.prompts,
        "dtype": str(model.dtype).removeprefix("torch."),
        "decoding": "greedy, exact match, ended by EOS",
        "accuracy": accuracy,
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
