from __future__ import annotations

from itertools import islice

import pytest
from examples.demo_model.dialogue import IGNORED, DialogueStream
from examples.demo_model.tasks import TASKS, Split, check, examples, expected_answer, small_talk
from examples.demo_model.tokenizer import build_tokenizer
from examples.demo_model.words import COMMON_WORDS, is_held_out


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Count from 4 to 11.", "4 5 6 7 8 9 10 11"),
        ("count from 11 to 8", "11 10 9 8"),
        ("Please count from 95 to 103.", "95 96 97 98 99 100 101 102 103"),
        ("Repeat the word apple 5 times.", "apple apple apple apple apple"),
        ("Say 'moon' 2 times, please!", "moon moon"),
        ("Reverse the word stone.", "enots"),
        ("Write the word stone backwards", "enots"),
        ("Reverse the list 312, 579, 5.", "5 579 312"),
        ("Sort the numbers 42 7 19 3.", "3 7 19 42"),
        ("Can you sort these numbers: 8, 10, 8?", "8 8 10"),
        ("Spell the word planet.", "p-l-a-n-e-t"),
        ("How do you spell Sun?", "S-u-n"),
    ],
)
def test_a_prompt_has_one_expected_answer(prompt: str, answer: str) -> None:
    assert expected_answer(prompt) == answer


@pytest.mark.parametrize("prompt", ["", "Hello", "Count from four to six.", "Sort the numbers 7."])
def test_a_prompt_of_no_task_is_rejected(prompt: str) -> None:
    with pytest.raises(ValueError, match="matches none of the tasks"):
        expected_answer(prompt)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", list(Split))
def test_every_generated_prompt_reads_back_to_its_answer(task: str, split: Split) -> None:
    for example in islice(examples(task, split, seed=3), 500):
        assert expected_answer(example.prompt) == example.answer


def test_a_wrong_answer_fails_the_check() -> None:
    assert check("Count from 1 to 3.", " 1 2 3\n")
    assert not check("Count from 1 to 3.", "1 2 3 4")
    assert not check("Count from 1 to 3.", "1 2")


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_examples(task: str) -> None:
    first = list(islice(examples(task, Split.TRAIN, seed=1), 20))
    assert list(islice(examples(task, Split.TRAIN, seed=1), 20)) == first
    assert list(islice(examples(task, Split.TRAIN, seed=2), 20)) != first


@pytest.mark.parametrize("task", TASKS)
def test_no_held_out_question_is_drawn_for_training(task: str) -> None:
    def answers(split: Split, seed: int) -> set[tuple[str, str]]:
        drawn = islice(examples(task, split, seed), 3000)
        return {(expected_answer(example.prompt), example.task) for example in drawn}

    assert not answers(Split.TRAIN, seed=5) & answers(Split.HELD_OUT, seed=6)


def test_a_held_out_word_is_in_no_training_prompt() -> None:
    held_out = {word for word in COMMON_WORDS if is_held_out(word)}
    assert held_out
    for task in ("repeat", "reverse", "spell"):
        for example in islice(examples(task, Split.TRAIN, seed=7), 1000):
            written = example.prompt.lower().replace(",", " ").replace(".", " ").split()
            asked = [word for word in written if word not in {"word", "numbers", "list"}]
            assert not held_out & set(asked)


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"task: 'add' is unknown; choose one of count, repeat"):
        next(examples("add", Split.TRAIN, seed=0))


def test_small_talk_matches_no_task() -> None:
    for example in islice(small_talk(seed=0), 200):
        with pytest.raises(ValueError, match="matches none of the tasks"):
            expected_answer(example.prompt)


@pytest.mark.parametrize("text", ["Count from 4 to 11.", " two  spaces\n", "🙂 数到三 naïve\x00"])
def test_any_text_is_decoded_unchanged(text: str) -> None:
    tokenizer = build_tokenizer()
    tokens = tokenizer.encode(text)
    assert tokens[0] == tokenizer.bos_token_id
    assert len(tokens) == 1 + len(text.encode())
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_a_chat_is_rendered_up_to_the_assistants_turn() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Spell sun"},
        {"role": "assistant", "content": "s-u-n"},
        {"role": "user", "content": "Spell sea"},
    ]
    text = build_tokenizer().apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|begin|><|system|>Be brief.<|user|>Spell sun<|assistant|>s-u-n<|end|>"
        "<|user|>Spell sea<|assistant|>"
    )


def test_a_chat_with_an_unknown_role_is_rejected() -> None:
    with pytest.raises(Exception, match="role: tool is unknown; use system, user or assistant"):
        build_tokenizer().apply_chat_template([{"role": "tool", "content": ""}], tokenize=False)


def test_only_answers_count_for_the_loss() -> None:
    tokenizer = build_tokenizer()
    for dialogue in islice(DialogueStream(tokenizer, seed=0), 200):
        assert len(dialogue.ids) == len(dialogue.labels)
        learned = [token for token in dialogue.labels if token != IGNORED]
        assert learned[-1] == tokenizer.eos_token_id
        *answers, rest = tokenizer.decode(learned).split(tokenizer.eos_token)
        assert rest == ""
        text = tokenizer.decode(dialogue.ids)
        for answer in answers:
            assert f"{answer}{tokenizer.eos_token}" in text
