"""A real chat model answers as transformers does, with the tokens that its tokenizer.json gives.

It needs a checkpoint, which the environment variable TEST_CHAT_MODEL names; without it the test is skipped.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from tdpipe.controller.start import plan_stages, start_engine
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import load_settings
from tdpipe.server.chat_template import TemplateMessage
from tdpipe.server.tokenizer import load_tokenizer

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


@pytest.mark.skipif(not MODEL, reason="TEST_CHAT_MODEL names no checkpoint of a chat model")
async def test_chats_are_answered_token_for_token_as_transformers_answers_them() -> None:
    path = Path(MODEL)
    tokenizer, file = load_tokenizer(path), Tokenizer.from_file(str(path / "tokenizer.json"))
    prompts = [tokenizer.encode_chat([TemplateMessage("user", (text,))]) for text in QUESTIONS]
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

    async def answer(number: int, prompt: tuple[int, ...]) -> list[int]:
        stream = engine.submit(prompt, TOKENS, SamplingParams(), frozenset(), str(number))
        return [token async for delta in stream for token in delta.tokens]

    try:
        answers = await asyncio.gather(*(answer(*each) for each in enumerate(prompts)))
    finally:
        engine.close()
    reference = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    reference.generation_config.eos_token_id = None
    for prompt, got in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        # Without a mask, transformers takes the end of a message for padding where both have one token.
        mask = torch.ones_like(ids)
        output = reference.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS
        )
        assert got == output[0, len(prompt) :].tolist()
