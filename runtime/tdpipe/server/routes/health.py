"""Health probes, version and metrics, for orchestrators and monitoring."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tdpipe import __version__
from tdpipe.server.context import Context

router = APIRouter()


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", responses={503: {"description": "Stuck; the body has the reason."}})
async def live(context: Context) -> JSONResponse:
    """Report whether the process works: 200, or 503 if it should be restarted."""
    reason = context.serving.dead_reason()
    if reason is not None:
        return JSONResponse({"status": "not live", "reason": reason}, 503)
    return JSONResponse({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", responses={503: {"description": "Not ready; the reason is told."}})
async def ready(context: Context) -> JSONResponse:
    """Report whether requests are answered: 200, or 503 with the reason why not."""
    reason = context.serving.unready_reason()
    if reason is not None:
        return JSONResponse({"status": "not ready", "reason": reason}, 503)
    return JSONResponse({"status": "ready"})


@router.head("/health", include_in_schema=False)
@router.get("/health", responses={503: {"description": "Not ready."}}, response_class=Response)
async def health(context: Context) -> Response:
    """The same as /health/ready without a body, under the path that clients of vLLM probe."""
    return Response(status_code=503 if context.serving.unready_reason() else 200)


@router.get("/version")
async def version() -> dict[str, str]:
    """Return the version that runs."""
    return {"version": __version__}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(context: Context) -> Response:
    """Return metrics in Prometheus' text format."""
    text, content_type = context.serving.metrics.render()
    return Response(text, media_type=content_type)
