"""Measure how often the demo model answers held-out prompts exactly right.

Run from the repository root: `python -m examples.demo_model.evaluate`. Plain `transformers` decodes
greedily in float32, so the results describe the model and not an engine.
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
from examples.demo_model.phrasing import has_end_mark
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
_SEED = (
    1_000_003  # any seed will do: held-out questions are never trained on, whatever the seeds are
)


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a checkpoint for generation, in the dtype that its config gives."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def render(
    tokenizer: PreTrainedTokenizerFast, form: str, example: Example, previous: Example
) -> str:
    """Return the whole text before an answer.

    Args:
        tokenizer: Tokenizer of the demo model.
        form: One of `FORMS`. `chat` is the first message of a chat, `second turn` a message after
            `previous` was answered, `line` raw text with a newline, `sentence` raw text without one.
        example: Example whose prompt is to be answered.
        previous: Example of the first turn in the form `second turn`.
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


def generate_answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> list[str | None]:
    """Decode the answer to each text greedily; None if no EOS follows before the last position."""
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
    drawn: list[Example],
    *,
    show_wrong: bool = False,
) -> float:
    """Return the share of examples that are answered exactly and ended by EOS.

    In the form `second turn`, each example follows the one before it in the list.
    """
    pairs = list(zip(drawn, drawn[-1:] + drawn[:-1], strict=True))
    pairs.sort(key=lambda pair: len(pair[0].answer))  # a batch takes as long as its longest answer
    correct = 0
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        texts = [render(tokenizer, form, example, previous) for example, previous in batch]
        for (example, _), answer in zip(
            batch, generate_answers(model, tokenizer, texts), strict=True
        ):
            is_correct = answer is not None and check(example.prompt, answer)
            correct += is_correct
            if show_wrong and not is_correct:
                print(f"wrong, {form}: {example.prompt!r} -> {answer!r}")
    return correct / len(pairs)


def main() -> None:
    """Print a table of exact matches and write it to a JSON file; see `--help`."""
    parser = argparse.ArgumentParser(description="Measure the demo model on held-out prompts.")
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument(
        "--prompts", type=int, default=500, help="number of prompts per task and form"
    )
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
                source = (example for example in source if has_end_mark(example.prompt))
            drawn = list(islice(source, arguments.prompts))
            accuracy[task][form] = measure(
                model, tokenizer, form, drawn, show_wrong=arguments.show_wrong
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
