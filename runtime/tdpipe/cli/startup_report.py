"""What a person sees while the server starts."""

from __future__ import annotations

import json
import time
from typing import Any

import typer

from tdpipe.core.settings import ServerSettings

_PROMPT = "Count from 4 to 11."
_ANY_ADDRESS = {
    "0.0.0.0": "127.0.0.1",
    "::": "[::1]",
}  # what a client on this host connects to instead


class StartupReport:
    """Prints steps with the seconds since the start, to standard error as the log does."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def step(self, message: str) -> None:
        """Say what begins now."""
        typer.echo(f"[{time.monotonic() - self._started:6.1f} s] {message}", err=True)

    def ready(self, settings: ServerSettings, model: str, *, chat: bool) -> None:
        """Say where the server is, with a command that tries it."""
        host = _ANY_ADDRESS.get(settings.host, settings.host)
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        url = f"http://{host}:{settings.port}/v1"
        self.step(f"ready: {url} serves {model!r}; try")
        typer.echo(f"\n{_curl(url, model, chat=chat)}\n\nCtrl-C stops.", err=True)


def _curl(url: str, model: str, *, chat: bool) -> str:
    body: dict[str, Any] = {"model": model, "temperature": 0}
    if chat:
        path = "chat/completions"
        body["messages"] = [{"role": "user", "content": _PROMPT}]
    else:
        path = "completions"
        body |= {"prompt": _PROMPT, "max_tokens": 64}
    return f"curl {url}/{path} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
