"""Writes docs/reference/api.md from the schemas of the request bodies, so that the page cannot tell anything else.

Run `python -m docs.generate_api_reference` after a change to them; a test fails until the page agrees.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tdpipe.server.schemas.chat import ChatBody, ChatMessage
from tdpipe.server.schemas.common import GenerationBody
from tdpipe.server.schemas.completions import CompletionBody

if TYPE_CHECKING:
    from tdpipe.server.schemas.body import Body

PAGE = Path(__file__).parent / "reference" / "api.md"
_HEAD = """# Request fields

What the endpoints take, from the schemas that check them. A field that is not listed is refused by name; a field of
OpenAI's that is listed as not supported is accepted only where it is null or empty. `/openapi.json` of a running server
has the same as a schema.

Beside these, `GET /v1/models`, `/health` (as vLLM's), `/health/live`, `/health/ready`, `/version` and `/metrics`
(Prometheus) answer. The client's `X-Request-Id` comes back in the response's header and stands in the log.
"""


def page() -> str:
    """The page's text."""
    shared = set(GenerationBody.model_fields)
    return "\n".join(
        [
            _HEAD,
            "## Both endpoints",
            "",
            *_fields(GenerationBody, shared),
            "",
            "## POST /v1/chat/completions",
            "",
            *_fields(ChatBody, set(ChatBody.model_fields) - shared),
            "",
            *_unsupported(ChatBody),
            "",
            "### A message",
            "",
            *_fields(ChatMessage, set(ChatMessage.model_fields)),
            "",
            *_unsupported(ChatMessage),
            "",
            "## POST /v1/completions",
            "",
            *_fields(CompletionBody, set(CompletionBody.model_fields) - shared),
            "",
            *_unsupported(CompletionBody),
            "",
        ]
    )


def _fields(body: type[Body], names: set[str]) -> list[str]:
    rows = [
        f"| `{name}` | {'yes' if info.is_required() else ''} | {info.description or ''} |"
        for name, info in body.model_fields.items()
        if name in names
    ]
    return ["| field | required | |", "|---|---|---|", *rows]


def _unsupported(body: type[Body]) -> list[str]:
    refused = body.unsupported | body.elsewhere
    rows = [f"| `{name}` | {reason} |" for name, reason in refused.items()]
    return ["| not supported | why |", "|---|---|", *rows]


if __name__ == "__main__":
    PAGE.write_text(page())
