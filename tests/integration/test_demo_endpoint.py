"""End-to-end tests of `tdpipe serve` with the demo model on two Ray stages.

Nothing between client and model is faked, because faults between processes, on real sockets and at the end of a process
show nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from tests.support.served_demo import (
    CHAT,
    COMPLETIONS,
    END_SECONDS,
    ServedDemo,
    answer,
    body,
    events,
    question,
    served_demo,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

README = Path(__file__).parents[2] / "README.md"
QUESTIONS = [(4, 11), (40, 41), (41, 60), (42, 80), (47, 49), (53, 92), (55, 70), (58, 97)]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
ENDLESS = body(CHAT, question(1, 60)) | {"ignore_eos": True, "max_tokens": 1000}
"""A request that runs for longer than any test."""
BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])


@pytest.fixture(scope="module")
def demo() -> Iterator[ServedDemo]:
    """A server whose KV cache holds one request of the longest context, so that requests compete for it."""
    with served_demo(TDPIPE_CACHE__BLOCKS="64", TDPIPE_SERVER__DRAIN_TIMEOUT="1") as server:
        yield server


def test_the_command_of_the_readme_returns_the_answer_of_the_readme(demo: ServedDemo) -> None:
    text = README.read_text()
    (given,) = re.findall(r"^ {4}(curl (?:.*\\\n)*.*)$", text, re.MULTILINE)
    command = given.replace("127.0.0.1:8000", f"127.0.0.1:{demo.port}")
    assert command != given
    if shutil.which("curl"):
        done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=True, timeout=60)
        response = json.loads(done.stdout)
    else:
        words = shlex.split(command.replace("\\\n", ""))
        response = httpx.post(words[1], json=json.loads(words[words.index("-d") + 1])).json()
    returned = response["choices"][0]["message"]["content"]
    assert returned == "4 5 6 7 8 9 10 11"
    assert f"The answer is `{returned}`" in text


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer that the `openai` client received."""

    text: str
    finish: str
    usage: Any

    @classmethod
    def whole(cls, response: Any) -> Answer:  # noqa: ANN401 - chat and completions have different types
        (choice,) = response.choices
        text = choice.message.content if hasattr(choice, "message") else choice.text
        return cls(text, choice.finish_reason, response.usage)

    @classmethod
    def streamed(cls, chunks: Sequence[Any]) -> Answer:
        choices = [choice for chunk in chunks for choice in chunk.choices]
        parts = [each.delta.content if hasattr(each, "delta") else each.text for each in choices]
        (finish,) = [each.finish_reason for each in choices if each.finish_reason]
        return cls("".join(part or "" for part in parts), finish, chunks[-1].usage)


def check_answers(wholes: Sequence[Answer], streamed: Sequence[Answer]) -> None:
    assert [each.text for each in wholes] == [answer(*numbers) for numbers in QUESTIONS]
    assert streamed == wholes
    for each in wholes:
        assert each.finish == "stop"
        assert (
            each.usage.completion_tokens == len(each.text) + 1
        )  # one token per character, and the end
        assert each.usage.prompt_tokens > 0
        assert each.usage.total_tokens == each.usage.prompt_tokens + each.usage.completion_tokens


@BOTH
def test_the_openai_client_gets_concurrent_questions_answered(demo: ServedDemo, path: str) -> None:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0) as client:
        create: Any = (client.chat.completions if path == CHAT else client.completions).create

        def whole(numbers: tuple[int, int]) -> Answer:
            return Answer.whole(create(**body(path, question(*numbers))))

        def streamed(numbers: tuple[int, int]) -> Answer:
            return Answer.streamed(list(create(**body(path, question(*numbers)), **STREAMED)))

        with ThreadPoolExecutor(2 * len(QUESTIONS)) as pool:
            wholes, streams = pool.map(whole, QUESTIONS), pool.map(streamed, QUESTIONS)
            check_answers(list(wholes), list(streams))


@BOTH
async def test_the_async_openai_client_gets_concurrent_questions_answered(
    demo: ServedDemo, path: str
) -> None:
    url = f"{demo.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        create: Any = (client.chat.completions if path == CHAT else client.completions).create

        async def whole(numbers: tuple[int, int]) -> Answer:
            return Answer.whole(await create(**body(path, question(*numbers))))

        async def streamed(numbers: tuple[int, int]) -> Answer:
            chunks = await create(**body(path, question(*numbers)), **STREAMED)
            return Answer.streamed([chunk async for chunk in chunks])

        answers = await asyncio.gather(*map(whole, QUESTIONS), *map(streamed, QUESTIONS))
    check_answers(answers[: len(QUESTIONS)], answers[len(QUESTIONS) :])


@pytest.mark.parametrize(
    ("path", "change", "status", "param", "remedy"),
    [
        (CHAT, body(CHAT, "x" * 1100), 400, "messages", "shorten the prompt"),
        (COMPLETIONS, body(COMPLETIONS, "x" * 1100), 400, "prompt", "shorten the prompt"),
        (CHAT, {"max_tokens": 1024}, 400, "max_tokens", "ask for at most"),
        (COMPLETIONS, {"max_tokens": 1024}, 400, "max_tokens", "ask for at most"),
        (CHAT, {"max_tokens": "3"}, 400, "max_tokens", "valid integer"),
        (CHAT, {"temperature": "hot"}, 400, "temperature", "valid number"),
        (CHAT, {"messages": "hello"}, 400, "messages", "valid array"),
        (COMPLETIONS, {"prompt": 5}, 400, "prompt", "give a string"),
        (CHAT, {"model": "other"}, 404, "model", "the served model is 'demo'"),
        (CHAT, {"max_token": 3}, 400, "max_token", "did you mean max_tokens?"),
    ],
)
def test_an_invalid_request_is_rejected_with_its_field_and_the_remedy(
    demo: ServedDemo, path: str, change: dict[str, Any], status: int, param: str, remedy: str
) -> None:
    response = httpx.post(f"{demo.url}{path}", json=body(path, question(4, 11)) | change)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert remedy in error["message"]


def test_a_client_that_disconnects_while_sending_its_body_is_no_error_of_the_server(
    demo: ServedDemo,
) -> None:
    with socket.create_connection(("127.0.0.1", demo.port)) as client:
        client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{{".encode())
        client.shutdown(socket.SHUT_WR)
        while client.recv(2**12):
            pass
    assert "tdpipe_error_responses_total{internal_error}" not in demo.metrics()
    assert "Traceback" not in demo.stderr()


@dataclass(frozen=True, slots=True)
class Visit:
    """A client that sends one request and may disconnect before it is answered."""

    numbers: tuple[int, int]
    arrival: float
    """Seconds until the request is sent."""
    stream: bool
    timeout: float | None
    """Seconds after which the client disconnects; None waits for the answer."""
    max_events: int | None
    """Number of stream events after which the client disconnects; None reads all."""

    @classmethod
    def draw(cls, random: Random) -> Visit:
        first = random.randint(40, 59)  # where the model makes no mistake
        stream = random.random() < 0.6
        seconds = random.choice([None, None, 0.05, 4.0])
        return cls(
            numbers=(first, first + random.randint(1, 25)),
            arrival=random.random(),
            stream=stream,
            timeout=None if seconds is None else random.uniform(0, seconds),
            max_events=random.randint(1, 60) if stream and random.random() < 0.4 else None,
        )

    async def make(self, http: httpx.AsyncClient) -> bool:
        """Send the request and return whether the client stayed until the end of the answer."""
        await asyncio.sleep(self.arrival)
        try:
            async with asyncio.timeout(self.timeout):
                text = await self._ask(http)
        except TimeoutError:
            return False
        assert text is None or text == answer(*self.numbers)
        return text is not None

    async def _ask(self, http: httpx.AsyncClient) -> str | None:
        asked = body(CHAT, question(*self.numbers))
        if not self.stream:
            response = (await http.post(CHAT, json=asked)).json()
            return str(response["choices"][0]["message"]["content"])
        parts: list[str] = []
        async with aclosing(events(http, asked)) as stream:
            async for event in stream:
                if len(parts) == self.max_events:
                    return None
                parts.append(event["choices"][0]["delta"].get("content") or "")
        return "".join(parts)


async def test_clients_that_disconnect_free_their_blocks_and_disturb_no_other_request(
    demo: ServedDemo,
) -> None:
    random = Random(5)
    visits = [Visit.draw(random) for _ in range(200)]
    unlimited = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=demo.url, timeout=120, limits=unlimited) as http:
        # These teach the server to expect short answers, so that the unexpectedly long ones cause
        # preemptions. Without the stop string the server would know that only max_tokens can end them.
        await asyncio.gather(*(http.post(CHAT, json=body(CHAT, question(4, 11))) for _ in range(9)))
        before = demo.metrics()
        long_one = ENDLESS | {"max_tokens": 300, "stop": ["text that the model never generates"]}
        long_ones = [asyncio.create_task(http.post(CHAT, json=long_one)) for _ in range(6)]
        stayed = await asyncio.gather(*(visit.make(http) for visit in visits))
        for long in await asyncio.gather(*long_ones):
            assert long.json()["choices"][0]["message"]["content"].startswith(answer(1, 60))
    assert 50 < sum(stayed) < 150

    def idle() -> bool:
        now = demo.metrics()
        names = ("kv_blocks_used", "requests_running", "requests_waiting")
        return all(now[f"tdpipe_{name}"] == 0 for name in names)

    assert wait_until(idle, END_SECONDS), demo.metrics()
    after, aborted = demo.metrics(), "tdpipe_requests_total{chat}{aborted}"
    assert after[aborted] - before.get(aborted, 0) > 25
    assert after["tdpipe_preemptions_total"] > before["tdpipe_preemptions_total"]


async def test_requests_outlive_the_death_of_a_stage() -> None:
    asked = ENDLESS | {"max_tokens": 600}
    with served_demo() as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=END_SECONDS) as http:
            unharmed = (await http.post(CHAT, json=asked)).json()["choices"][0]["message"]
            streams = [events(http, asked) for _ in range(3)]
            texts = ["".join([_text(await anext(stream)) for _ in range(5)]) for stream in streams]
            waiting = asyncio.create_task(http.post(CHAT, json=asked))
            stages = [each for each in server.descendants() if "StageActor" in each.command]
            os.kill(stages[1].pid, signal.SIGKILL)
            for number, stream in enumerate(streams):
                texts[number] += "".join([_text(event) async for event in stream])
            response = await waiting
        assert texts == [unharmed["content"]] * 3
        assert response.json()["choices"][0]["message"] == unharmed
        metrics = server.metrics()
        assert metrics["tdpipe_restarts_total"] == 1
        assert metrics["tdpipe_preemptions_total"] == 0


def _text(event: dict[str, Any]) -> str:
    (choice,) = event["choices"]
    return str(choice["delta"].get("content") or "")


async def test_a_killed_stage_is_named_in_every_response_where_no_restart_is_allowed() -> None:
    with served_demo(TDPIPE_RECOVERY__MAX_RESTARTS="0") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=END_SECONDS) as http:
            streams = [events(http, ENDLESS) for _ in range(3)]
            for stream in streams:
                assert "error" not in await anext(stream)
            waiting = asyncio.create_task(http.post(CHAT, json=ENDLESS))
            stages = [each for each in server.descendants() if "StageActor" in each.command]
            assert len(stages) == 2
            os.kill(stages[0].pid, signal.SIGKILL)
            lasts = [[event async for event in stream][-1] for stream in streams]
            response = await waiting
        assert await asyncio.to_thread(server.await_end) == 1
        log = server.stderr()
        deaths = re.findall(r"the process of stage (\d) died.*?pid: (\d+)", log, re.DOTALL)
        stage, pid = deaths[0]
        assert int(pid) == stages[0].pid
        assert response.status_code == 503
        for error in (*lasts, response.json()):
            assert f"the process of stage {stage} died" in error["error"]["message"]
        assert log.splitlines()[-1].startswith(f"error: the process of stage {stage} died")
        assert server.left_behind() == set()


def check_end(server: ServedDemo, number: signal.Signals) -> None:
    """Check that the signal ends a running request with a reason, and the server with all its processes."""
    asked = ENDLESS | {"stream": True}
    with httpx.stream("POST", f"{server.url}{CHAT}", json=asked, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        assert server.signal(number) == 0
        assert "shutting_down" in "".join(lines)
    assert server.left_behind() == set()


def test_ctrl_c_lets_a_running_request_finish() -> None:
    with served_demo() as server:
        asked = ENDLESS | {"max_tokens": 400, "stream": True}
        with httpx.stream("POST", f"{server.url}{CHAT}", json=asked, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            assert server.signal(signal.SIGINT) == 0
            assert [line for line in lines if line][-1] == "data: [DONE]"
    assert server.left_behind() == set()


def test_ctrl_c_ends_requests_and_leaves_no_process() -> None:
    with served_demo(TDPIPE_SERVER__DRAIN_TIMEOUT="1") as server:
        check_end(server, signal.SIGINT)
        assert "Traceback" not in server.stderr()


def test_sigterm_ends_requests_and_leaves_no_process(demo: ServedDemo) -> None:
    check_end(demo, signal.SIGTERM)  # the last test of the module, because it ends the server
