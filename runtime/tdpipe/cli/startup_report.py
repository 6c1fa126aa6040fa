"""Prints the steps of a start to the terminal."""

from __future__ import annotations

import json
import time
from typing import Any

import typer

from tdpipe.core.settings import ServerSettings

_DEMO_PROMPT = "Count from 4 to 11."
_PROMPT = "What is the capital of France?"
_ANY_ADDRESS = {
    "0.0.0.0": "127.0.0.1",
    "::": "[::1]",
}
"""Addresses that stand for any interface, with the one that a client on this host connects to."""


class StartupReport:
    """Prints steps with the seconds since the start. Like the log it writes to standard error."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def step(self, message: str) -> None:
        """Print a step that starts now."""
        typer.echo(f"[{time.monotonic() - self._started:6.1f} s] {message}", err=True)

    def ready(self, settings: ServerSettings, model: str, *, chat: bool, demo: bool) -> None:
        """Print the server's URL, with a command that sends a request to it.

        Args:
            settings: Where the server listens.
            model: The name of the model.
            chat: Whether the model has a chat template.
            demo: Whether it is the demo model, which answers only questions of its own kind.
        """
        host = _ANY_ADDRESS.get(settings.host, settings.host)
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        url = f"http://{host}:{settings.port}/v1"
        self.step(f"ready: {url} serves {model!r}; try it with")
        typer.echo(
            f"\n{_curl(url, model, _DEMO_PROMPT if demo else _PROMPT, chat=chat)}\n\nPress Ctrl-C to stop.",
            err=True,
        )


def _curl(url: str, model: str, prompt: str, *, chat: bool) -> str:
    body: dict[str, Any] = {"model": model, "temperature": 0}
    if chat:
        path = "chat/completions"
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        path = "completions"
        body |= {"prompt": prompt, "max_tokens": 64}
    return f"curl {url}/{path} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
