"""Handing prompts to the engine: what must hold of them, and how long their output may be."""

from __future__ import annotations

from collections.abc import Sequence

from tdpipe.core.capacity import Capacity
from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.features import PromptFeatures
from tdpipe.server.call import Call
from tdpipe.server.context import RequestContext
from tdpipe.server.detokenizer import Detokenizer
from tdpipe.server.errors import ApiError
from tdpipe.server.generation import Generation
from tdpipe.server.request_record import RequestRecord
from tdpipe.server.schemas.common import GenerationBody
from tdpipe.server.serving import Service
from tdpipe.server.stop_strings import StopStrings
from tdpipe.server.tokenized_prompt import TokenizedPrompt


def submit(
    context: RequestContext,
    service: Service,
    body: GenerationBody,
    prompts: Sequence[TokenizedPrompt],
) -> Call:
    """Submit all prompts of a call, or none.

    Raises:
        ApiError: 400, a prompt or a token id does not fit.
        RequestError: the engine refuses a request.
    """
    engine, model = service.engine, service.model
    for prompt in prompts:
        _check_tokens(body.prompt_field, prompt.tokens, engine.vocab_size)
    for param, tokens in body.named_tokens().items():
        _check_tokens(param, tokens, engine.vocab_size)
    budgets = [_output_budget(body, len(prompt.tokens), engine.capacity) for prompt in prompts]
    sampling = body.sampling(default_temperature=model.default_temperature)
    stop_token_ids = frozenset(body.stop_token_ids or ())
    if not body.ignore_eos:
        stop_token_ids |= model.eos_token_ids
    generations: list[Generation] = []
    try:
        for index, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True)):
            request_id = f"{body.id_prefix}-{context.request_id}-{index}"
            features = _features(body, prompt, budget, sampling, stop_token_ids)
            stream = engine.submit(
                prompt.tokens, budget, sampling, stop_token_ids, request_id, features
            )
            before = prompt.tokens if body.continues_prompt else ()
            record = RequestRecord(
                request_id, body.endpoint, len(prompt.tokens), arrived=context.arrived
            )
            generations.append(
                Generation(
                    stream,
                    detokenizer=Detokenizer(model.tokenizer, before),
                    stops=StopStrings(body.stop or ()),
                    stop_token_ids=stop_token_ids,
                    record=record,
                    sink=context.serving.request_ended,
                )
            )
    except BaseException:
        Call(generations).close()
        raise
    return Call(generations)


def _features(
    body: GenerationBody,
    prompt: TokenizedPrompt,
    budget: int,
    sampling: SamplingParams,
    stop_token_ids: frozenset[int],
) -> PromptFeatures:
    return PromptFeatures(
        len(prompt.tokens),
        budget,
        sampling,
        can_stop=bool(stop_token_ids or body.stop),
        text=prompt.text,
        tenant=body.user,
    )


def _check_tokens(param: str, tokens: Sequence[int], vocab_size: int) -> None:
    largest = max(tokens, default=0)
    if largest >= vocab_size:
        raise ApiError(
            400,
            f"{param}: token id {largest} is outside the vocabulary of {vocab_size} tokens",
            param=param,
            code="invalid_value",
        )


def _output_budget(body: GenerationBody, prompt: int, capacity: Capacity) -> int:
    limit, what, raising = capacity.max_context, "the context", ""
    if capacity.kv_tokens < limit:
        limit, what = capacity.kv_tokens, "the KV cache"
        raising = ", or raise the server's cache.memory or cache.blocks"
    left = limit - prompt
    field, asked = body.output_limit
    size = f"the prompt has {prompt} tokens"
    if left < 1:
        problem = f"{size}, but {what} holds {limit} with at least one output token"
        raise _too_long(f"{problem}; shorten the prompt{raising}", body.prompt_field)
    if asked is not None and asked > left:
        problem = (
            f"{size} and {field} is {asked}, {prompt + asked} together, but {what} holds {limit}"
        )
        remedy = f"shorten the prompt or ask for at most {left} output tokens"
        raise _too_long(f"{problem}; {remedy}{raising}", field)
    if asked is None:
        return left if body.default_output_limit is None else min(left, body.default_output_limit)
    return asked


def _too_long(message: str, param: str) -> ApiError:
    return ApiError(400, message, param=param, code="context_length_exceeded")
