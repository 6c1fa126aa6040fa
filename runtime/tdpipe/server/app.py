"""Puts the FastAPI application together from routes, error handlers and request ids."""

from __future__ import annotations

from fastapi import FastAPI

from tdpipe import __version__
from tdpipe.server.context import RequestIds
from tdpipe.server.errors import install_error_handlers
from tdpipe.server.routes import chat, completions, health, models
from tdpipe.server.serving import Serving


def create_app(serving: Serving) -> FastAPI:
    """Create the application that answers from `serving`, which need not be ready yet."""
    # The interactive pages would load scripts from a public CDN.
    app = FastAPI(title="tdpipe", version=__version__, docs_url=None, redoc_url=None)
    app.state.serving = serving
    app.add_middleware(RequestIds)
    install_error_handlers(app, serving.metrics.count_error)
    for module in (completions, chat, models, health):
        app.include_router(module.router)
    return app
