"""Puts the FastAPI application together from routes, error handlers and request ids."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from tdpipe import __version__
from tdpipe.server.errors import install_error_handlers
from tdpipe.server.middleware import CallsInWork, RequestIds
from tdpipe.server.openapi import describe_bodies
from tdpipe.server.routes import chat, completions, health, models
from tdpipe.server.serving import Serving


def create_app(serving: Serving, cors_origins: Sequence[str] = ()) -> FastAPI:
    """Create the application that answers from `serving`, which need not be ready yet.

    Args:
        serving: what endpoints answer from.
        cors_origins: origins of web pages that may call the API from a browser; `*` is any.
    """
    # The interactive pages would load scripts from a public CDN.
    app = FastAPI(title="tdpipe", version=__version__, docs_url=None, redoc_url=None)
    app.state.serving = serving
    install_error_handlers(app, serving.metrics.count_error)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(RequestIds)
    app.add_middleware(CallsInWork, count=serving.count_call)
    for module in (completions, chat, models, health):
        app.include_router(module.router)
    describe_bodies(app)
    return app
