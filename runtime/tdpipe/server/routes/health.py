"""Health probes, version and metrics, for orchestrators and monitoring."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from tdpipe import __version__
from tdpipe.server.context import Context

router = APIRouter()


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Report that the process runs and answers."""
    return {"status": "live"}


@router.get("/health/ready")
async def ready(context: Context) -> JSONResponse:
    """Report whether requests are answered: 200, or 503 with the reason why not."""
    reason = context.serving.unready_reason()
    if reason is not None:
        return JSONResponse({"status": "not ready", "reason": reason}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/version")
async def version() -> dict[str, str]:
    """Return the version that runs."""
    return {"version": __version__}


@router.get("/metrics")
async def metrics(context: Context) -> Response:
    """Return metrics in Prometheus' text format."""
    text, content_type = context.serving.metrics.render()
    return Response(text, media_type=content_type)
