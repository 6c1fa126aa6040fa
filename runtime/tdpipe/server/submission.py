"""Submits a call's prompts to the engine, after checking that the engine can run all of them."""

from __future__ import annotations

from collections.abc import Sequence

from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import RequestError
from tdpipe.core.sampling import SamplingParams
from tdpipe.prediction.features import PromptFeatures
from tdpipe.server.call import Call
from tdpipe.server.context import RequestContext
from tdpipe.server.detokenizer import Detokenizer
from tdpipe.server.errors import ApiError
from tdpipe.server.generation import Generation
from tdpipe.server.prompts import TokenizedPrompt
from tdpipe.server.request_record import RequestRecord
from tdpipe.server.schemas.common import GenerationBody
from tdpipe.server.serving import Service
from tdpipe.server.stop_strings import StopStrings


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
        _check_token_ids(body.prompt_field, prompt.tokens, engine.vocab_size)
    for param, tokens in body.named_tokens().items():
        _check_token_ids(param, tokens, engine.vocab_size)
    limits = [_output_limit(body, len(prompt.tokens), engine.capacity) for prompt in prompts]
    sampling = body.sampling(default_temperature=model.default_temperature)
    stop_token_ids = frozenset(body.stop_token_ids or ())
    if not body.ignore_eos:
        stop_token_ids |= model.eos_token_ids
    generations: list[Generation] = []
    try:
        for index, (prompt, max_tokens) in enumerate(zip(prompts, limits, strict=True)):
            request_id = f"{body.id_prefix}-{context.request_id}-{index}"
            features = _features(body, prompt, max_tokens, sampling, stop_token_ids)
            stream = engine.submit(
                prompt.tokens,
                max_tokens,
                sampling.for_choice(index),
                stop_token_ids,
                request_id,
                features,
            )
            text_before = prompt.tokens if body.continues_prompt else ()
            record = RequestRecord(
                request_id,
                body.endpoint,
                len(prompt.tokens),
                context.client_id,
                arrived=context.arrived,
            )
            generations.append(
                Generation(
                    stream,
                    detokenizer=Detokenizer(model.tokenizer, text_before),
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
    max_tokens: int,
    sampling: SamplingParams,
    stop_token_ids: frozenset[int],
) -> PromptFeatures:
    return PromptFeatures(
        len(prompt.tokens),
        max_tokens,
        sampling,
        can_stop=bool(stop_token_ids or body.stop),
        text=prompt.text,
        tenant=body.user,
    )


def _check_token_ids(param: str, tokens: Sequence[int], vocab_size: int) -> None:
    largest = max(tokens, default=0)
    if largest >= vocab_size:
        raise ApiError(
            400,
            f"{param}: token id {largest} is outside the vocabulary of {vocab_size} tokens; "
            f"use ids below {vocab_size}",
            param=param,
            code="invalid_value",
        )


def _output_limit(body: GenerationBody, prompt_tokens: int, capacity: Capacity) -> int:
    """The number of output tokens that a prompt may have.

    The engine checks each request again when it is submitted, but then others of the call already run.
    """
    field, max_tokens = body.output_limit
    if max_tokens is None:
        room = max(1, capacity.longest_sequence - prompt_tokens)
        max_tokens = min(room, body.default_output_limit or room)
    try:
        capacity.check(prompt_tokens, max_tokens)
    except RequestError as error:
        param = field if error.param == "max_tokens" else body.prompt_field
        raise ApiError(400, str(error), param=param, code="context_length_exceeded") from error
    return max_tokens
