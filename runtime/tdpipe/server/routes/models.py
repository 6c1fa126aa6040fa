"""/v1/models: the one model that is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tdpipe.server.context import Context
from tdpipe.server.serving import Service

router = APIRouter()


@router.get("/v1/models")
async def list_models(context: Context) -> dict[str, Any]:
    """List the served model."""
    return {"object": "list", "data": [_card(context.serving.service())]}


@router.get("/v1/models/{name:path}")
async def retrieve_model(name: str, context: Context) -> dict[str, Any]:
    """Describe one model."""
    return _card(context.serving.service_for(name))


def _card(service: Service) -> dict[str, Any]:
    return {
        "id": service.model.name,
        "object": "model",
        "created": service.model.created,
        "owned_by": "tdpipe",
        # Not a field of OpenAI's API; clients that size their prompts read it.
        "max_model_len": service.engine.capacity.longest_sequence,
    }
