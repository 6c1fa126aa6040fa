"""A real chat model answers as transformers does, with the tokens that its tokenizer.json gives.

It needs a checkpoint, which the environment variable TEST_CHAT_MODEL names; without it the test is skipped.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from tdpipe.controller.start import plan_stages, start_engine
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import load_settings
from tdpipe.server.chat_template import TemplateMessage
from tdpipe.server.tokenizer import load_tokenizer
from tests.support.served_demo import descendants

if TYPE_CHECKING:
    from tdpipe.controller.engine import Engine
    from tdpipe.server.tokenizer import Tokenizer as ChatTokenizer

MODEL = os.environ.get("TEST_CHAT_MODEL", "")
TOKENS = 24
QUESTIONS = (
    "What is the capital of France?",
    "Add 1,000 and 2,000.",
    "Write three steps:\n  1. mix\n  2. bake\n  3.",
    "What colour is the sky?",
    "Name a prime number above 10.",
    "Translate 'good morning' into French.",
    "How many days has a week?",
    "1,000\n\n2,000\n\n3,000\n\nGo on.",
    "Who wrote Hamlet?",
    "What is 7 times 8?",
    "List two fruits.",
    "Is water wet? Answer in a word.",
    "Which planet is the largest?",
    "Spell 'pipeline' backwards.",
    "Give a synonym of 'fast'.",
    "What is H2O?",
    "Finish: roses are red, violets are",
    "What is 12345 + 67890?",
    "Say hello in Spanish.  ",
    "Explain KV caches in one sentence. 😀",
)


SUBJECTS = (
    "France",
    "gravity",
    "bread",
    "a verb",
    "the sun",
    "chess",
    "rain",
    "a lion",
    "tea",
    "a byte",
)
FORMS = (
    "What is {}?",
    "Name a fact about {}.",
    "Where would I find {}?",
    "Is {} old?",
    "Define {}.",
)

pytestmark = pytest.mark.skipif(
    not MODEL, reason="TEST_CHAT_MODEL names no checkpoint of a chat model"
)


def as_prompt(tokenizer: ChatTokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode_chat([TemplateMessage("user", (text,))]))


async def answer(engine: Engine, name: str, prompt: tuple[int, ...]) -> list[int]:
    stream = engine.submit(prompt, TOKENS, SamplingParams(), frozenset(), name)
    return [token async for delta in stream for token in delta.tokens]


def reference_answers(path: Path, prompts: list[tuple[int, ...]]) -> list[list[int]]:
    reference = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    reference.generation_config.eos_token_id = None
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        # Without a mask, transformers takes the end of a message for padding where both have one token.
        mask = torch.ones_like(ids)
        output = reference.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS
        )
        answers.append(output[0, len(prompt) :].tolist())
    return answers


async def test_chats_are_answered_token_for_token_as_transformers_answers_them() -> None:
    path = Path(MODEL)
    tokenizer, file = load_tokenizer(path), Tokenizer.from_file(str(path / "tokenizer.json"))
    prompts = [as_prompt(tokenizer, text) for text in QUESTIONS]
    template = transformers.AutoTokenizer.from_pretrained(path)
    for text, prompt in zip(QUESTIONS, prompts, strict=True):
        rendered = template.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        assert prompt == tuple(file.encode(rendered, add_special_tokens=False).ids)
    settings = load_settings(
        flags={
            "model": {"path": path, "device": "cpu"},
            "pipeline": {"stages": 2, "host": "in_process"},
            "cache": {"blocks": 512},
        }
    )
    engine = start_engine(settings, plan_stages(settings), lambda _: None)
    try:
        answers = await asyncio.gather(
            *(answer(engine, str(number), prompt) for number, prompt in enumerate(prompts))
        )
    finally:
        engine.close()
    assert answers == reference_answers(path, prompts)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
async def test_chats_are_answered_alike_before_and_through_the_death_of_a_stage() -> None:
    path = Path(MODEL)
    tokenizer = load_tokenizer(path)
    prompts = [as_prompt(tokenizer, form.format(each)) for each in SUBJECTS for form in FORMS]
    settings = load_settings(
        flags={
            "model": {"path": path, "device": "cpu"},
            "pipeline": {"stages": 2},
            "cache": {"blocks": 512},
        }
    )
    engine = await asyncio.to_thread(start_engine, settings, plan_stages(settings), print)

    def ask(round_: str) -> list[asyncio.Task[list[int]]]:
        return [
            asyncio.create_task(answer(engine, f"{round_}-{number}", prompt))
            for number, prompt in enumerate(prompts)
        ]

    try:
        before = await asyncio.gather(*ask("before"))
        through = ask("through")
        await asyncio.wait(through, return_when=asyncio.FIRST_COMPLETED)
        stages = [each for each in descendants(os.getpid()) if "StageActor" in each.command]
        os.kill(stages[0].pid, signal.SIGKILL)
        after = await asyncio.gather(*through)
    finally:
        await asyncio.to_thread(engine.close)
    assert engine.snapshot().restarts == 1
    assert len(prompts) == 50
    expected = reference_answers(path, prompts)
    assert before == expected
    assert after == expected
