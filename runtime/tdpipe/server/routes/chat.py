"""/v1/chat/completions: the next message of a conversation."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from tdpipe.core.request import FinishReason
from tdpipe.server.call import Call, Output
from tdpipe.server.context import Context
from tdpipe.server.generation import ScoredToken
from tdpipe.server.logprobs import chat_logprobs
from tdpipe.server.prompts import check_message_count, tokenize_chat
from tdpipe.server.routes.respond import respond
from tdpipe.server.schemas.body import read_body
from tdpipe.server.schemas.chat import ChatBody
from tdpipe.server.served_model import ServedModel
from tdpipe.server.submission import submit

router = APIRouter()


@router.post("/v1/chat/completions")
async def create_chat_completion(context: Context) -> Response:
    """Answer a conversation."""
    body = await read_body(context.request, ChatBody)
    service = context.serving.service_for(body.model)
    max_tokens = service.engine.capacity.longest_sequence
    check_message_count(len(body.messages), max_tokens)
    messages = [message.for_template() for message in body.messages]
    prompt = await context.serving.tokenize(
        context.request.receive,
        sum(message.characters for message in messages),
        lambda cancelled: tokenize_chat(messages, service.model.tokenizer, max_tokens, cancelled),
    )
    call = submit(context, service, body, [prompt])
    answer = _Answer(context.request_id, body, service.model)
    return await respond(context.request, call, answer, body)


class _Answer:
    """Shapes chat completions, and chunks that carry only what is new."""

    def __init__(self, request_id: str, body: ChatBody, model: ServedModel) -> None:
        self._head = {
            "id": f"{body.id_prefix}-{request_id}",
            "created": int(time.time()),
            "model": model.name,
        }
        self._tokenizer = model.tokenizer
        self._with_logprobs = bool(body.logprobs)

    def whole(self, outputs: Sequence[Output]) -> dict[str, Any]:
        (output,) = outputs
        message = {"role": "assistant", "content": output.text, "refusal": None}
        choice = self._choice(output.tokens, output.finish) | {"message": message}
        return self._head | {"object": "chat.completion", "choices": [choice]}

    async def chunks(self, call: Call) -> AsyncGenerator[dict[str, Any]]:
        head = self._head | {"object": "chat.completion.chunk"}

        def chunk(
            delta: dict[str, str],
            tokens: Sequence[ScoredToken] = (),
            finish: FinishReason | None = None,
        ) -> dict[str, Any]:
            return head | {"choices": [self._choice(tokens, finish) | {"delta": delta}]}

        # The role is sent with the first token, so that a client that times the first chunk measures the TTFT.
        role_sent = False
        waiting: tuple[ScoredToken, ...] = ()
        async with aclosing(call.deltas()) as deltas:
            async for _, delta in deltas:
                if not role_sent:
                    yield chunk({"role": "assistant", "content": ""})
                    role_sent = True
                waiting += delta.tokens
                if delta.text or (delta.finish and waiting):
                    yield chunk({"content": delta.text}, waiting)
                    waiting = ()
                if delta.finish:
                    yield chunk({}, (), delta.finish)

    def _choice(self, tokens: Sequence[ScoredToken], finish: FinishReason | None) -> dict[str, Any]:
        # A chunk without tokens has null for log-probabilities, not an empty list.
        logprobs = (
            chat_logprobs(tokens, self._tokenizer) if self._with_logprobs and tokens else None
        )
        return {"index": 0, "logprobs": logprobs, "finish_reason": finish}
