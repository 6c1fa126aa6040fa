"""/v1/chat/completions: the next message of a conversation."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from tdpipe.core.errors import RequestError
from tdpipe.core.request import FinishReason
from tdpipe.prediction.text_features import extract_text_features
from tdpipe.server.call import Call, Output
from tdpipe.server.context import Context
from tdpipe.server.generation import ScoredToken
from tdpipe.server.logprobs import chat_logprobs
from tdpipe.server.routes.respond import respond
from tdpipe.server.schemas.body import openapi_body, read_body
from tdpipe.server.schemas.chat import ChatBody
from tdpipe.server.served_model import ServedModel
from tdpipe.server.submission import TokenizedPrompt, submit

router = APIRouter()


@router.post("/v1/chat/completions", openapi_extra=openapi_body(ChatBody))
async def create_chat_completion(context: Context) -> Response:
    """Answer a conversation."""
    body = await read_body(context.request, ChatBody)
    service = context.serving.service_for(body.model)
    messages = [message.for_template() for message in body.messages]

    def tokenize() -> TokenizedPrompt:
        text = extract_text_features("\n".join(message["content"] for message in messages))
        return TokenizedPrompt(service.model.tokenizer.encode_chat(messages), text)

    prompt = await context.serving.tokenize(tokenize)
    if not prompt.tokens:
        raise RequestError(
            "messages: the chat template turns them into no token; give at least one with text",
            "messages",
        )
    call = submit(context, service, body, [prompt])
    answer = _Answer(context.request_id, body, service.model)
    include_usage = body.include_usage
    return await respond(
        context.request, call, answer, stream=body.stream, include_usage=include_usage
    )


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

    async def chunks(self, call: Call, *, include_usage: bool) -> AsyncGenerator[dict[str, Any]]:
        head = self._head | {"object": "chat.completion.chunk"}
        head |= {"usage": None} if include_usage else {}

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
        if include_usage:
            yield head | {"choices": [], "usage": call.usage()}

    def _choice(self, tokens: Sequence[ScoredToken], finish: FinishReason | None) -> dict[str, Any]:
        # A chunk without tokens has null for log-probabilities, not an empty list.
        logprobs = (
            chat_logprobs(tokens, self._tokenizer) if self._with_logprobs and tokens else None
        )
        return {"index": 0, "logprobs": logprobs, "finish_reason": finish}
