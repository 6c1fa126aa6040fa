"""The committed demo checkpoint solves its tasks in plain `transformers`, as its README says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from examples.demo_model.evaluate import generate_answers, load
from examples.demo_model.tasks import HELP, TASKS, expected_answer
from examples.demo_model.tokenizer import CHECKPOINT, build_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPTS = {
    "count": [
        "Count from 4 to 11.",
        "Count from 95 to 103.",
        "count from 1 to 40",
        "Please count from 12 to 7.",
        "List the numbers from 288 to 305.",
    ],
    "repeat": [
        "Repeat the word apple 5 times.",
        "Repeat the word blorp 3 times.",
        "say hello 8 times",
        "Can you repeat moon 10 times?",
        "Write the word stage 2 times, please.",
    ],
    "reverse": [
        "Reverse the word stone.",
        "reverse the word pipeline",
        "Write the word decode backwards.",
        "Reverse the list 3 1 4 15 9.",
        "Reverse the list red, green, blue.",
    ],
    "sort": [
        "Sort the numbers 42 7 19 3.",
        "sort 10, 9, 8, 7",
        "Sort these numbers: 512, 64, 128, 256.",
        "Put the numbers 5 3 4 in order.",
        "Please sort the numbers 900 31 77 450 8.",
    ],
    "spell": [
        "Spell the word planet.",
        "spell prefill",
        "How do you spell token?",
        "Spell the word Berlin.",
        "Please spell the word xylophone.",
    ],
}
Loaded = tuple["LlamaForCausalLM", "PreTrainedTokenizerFast"]


@pytest.fixture(scope="module")
def demo() -> Loaded:
    return load(CHECKPOINT)


def chat(tokenizer: PreTrainedTokenizerFast, *contents: str) -> str:
    """Return the prompt of a chat in which user and assistant take turns, up to the next answer."""
    messages = [
        {"role": "assistant" if index % 2 else "user", "content": content}
        for index, content in enumerate(contents)
    ]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_answered_in_a_chat_and_the_answer_ends(demo: Loaded, task: str) -> None:
    model, tokenizer = demo
    texts = [chat(tokenizer, prompt) for prompt in PROMPTS[task]]
    assert generate_answers(model, tokenizer, texts) == [
        expected_answer(prompt) for prompt in PROMPTS[task]
    ]


@pytest.mark.parametrize("task", TASKS)
def test_raw_text_with_a_newline_is_answered(demo: Loaded, task: str) -> None:
    model, tokenizer = demo
    texts = [f"{tokenizer.bos_token}{prompt}\n" for prompt in PROMPTS[task]]
    assert generate_answers(model, tokenizer, texts) == [
        expected_answer(prompt) for prompt in PROMPTS[task]
    ]


def test_raw_text_with_a_full_stop_is_answered_on_the_next_line(demo: Loaded) -> None:
    model, tokenizer = demo
    text = f"{tokenizer.bos_token}Count from 4 to 11."
    assert generate_answers(model, tokenizer, [text]) == ["\n4 5 6 7 8 9 10 11"]


def test_a_second_question_in_a_chat_is_answered(demo: Loaded) -> None:
    model, tokenizer = demo
    text = chat(tokenizer, "Spell the word sun.", "s-u-n", "Count from 4 to 11.")
    assert generate_answers(model, tokenizer, [text]) == ["4 5 6 7 8 9 10 11"]


def test_a_prompt_without_a_task_is_answered_with_the_list_of_tasks(demo: Loaded) -> None:
    model, tokenizer = demo
    assert generate_answers(model, tokenizer, [chat(tokenizer, "Hello!")]) == [HELP]


def test_the_checkpoint_is_small_and_in_float32(demo: Loaded) -> None:
    model, _ = demo
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 8_000_000
    assert json.loads((CHECKPOINT / "config.json").read_text())["dtype"] == "float32"
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}


def test_the_model_splits_into_stages_and_shares_kv_heads(demo: Loaded) -> None:
    config = demo[0].config
    assert config.num_hidden_layers >= 4
    assert config.num_key_value_heads < config.num_attention_heads


def test_the_committed_tokenizer_equals_the_one_that_the_script_builds(demo: Loaded) -> None:
    _, committed = demo
    built = build_tokenizer()
    assert committed.get_vocab() == built.get_vocab()
    assert committed.chat_template == built.chat_template
    assert committed.encode("數 and 🙂\n") == built.encode("數 and 🙂\n")
