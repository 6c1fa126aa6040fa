"""/v1/completions: text that continues one or more prompts."""

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
from tdpipe.server.logprobs import completion_logprobs
from tdpipe.server.prompts import tokenize_texts
from tdpipe.server.routes.respond import respond
from tdpipe.server.schemas.body import read_body
from tdpipe.server.schemas.completions import CompletionBody
from tdpipe.server.served_model import ServedModel
from tdpipe.server.submission import submit

router = APIRouter()


@router.post("/v1/completions")
async def create_completion(context: Context) -> Response:
    """Continue each prompt."""
    body = await read_body(context.request, CompletionBody)
    service = context.serving.service_for(body.model)
    prompts = await context.serving.tokenize(
        context.request.receive,
        sum(len(prompt) for prompt in body.prompt),
        lambda cancelled: tokenize_texts(
            body.prompt,
            service.model.tokenizer,
            service.engine.capacity.longest_sequence,
            cancelled,
        ),
    )
    call = submit(context, service, body, prompts)
    answer = _Answer(context.request_id, body, service.model)
    return await respond(context.request, call, answer, body)


class _Answer:
    """Shapes completions and their chunks, which are alike."""

    def __init__(self, request_id: str, body: CompletionBody, model: ServedModel) -> None:
        self._head = {
            "id": f"{body.id_prefix}-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
        }
        self._tokenizer = model.tokenizer
        self._with_logprobs = body.logprob_count is not None

    def whole(self, outputs: Sequence[Output]) -> dict[str, Any]:
        return self._head | {
            "choices": [
                self._choice(index, output.text, output.tokens, output.finish)
                for index, output in enumerate(outputs)
            ]
        }

    async def chunks(self, call: Call) -> AsyncGenerator[dict[str, Any]]:
        waiting: dict[int, tuple[ScoredToken, ...]] = {}
        async with aclosing(call.deltas()) as deltas:
            async for index, delta in deltas:
                tokens = waiting.pop(index, ()) + delta.tokens
                if delta.text or delta.finish:
                    yield self._head | {
                        "choices": [self._choice(index, delta.text, tokens, delta.finish)]
                    }
                else:
                    waiting[index] = tokens

    def _choice(
        self, index: int, text: str, tokens: Sequence[ScoredToken], finish: FinishReason | None
    ) -> dict[str, Any]:
        logprobs = completion_logprobs(tokens, self._tokenizer) if self._with_logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
