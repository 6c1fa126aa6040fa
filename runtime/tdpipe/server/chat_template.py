"""The checkpoint's chat template: messages to the text that the model continues.

Templates differ in how they read a message: some take its content as a string, others walk over a list of parts, and
one that gets the wrong form often renders nothing and says nothing. So each role is probed once, at the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tdpipe.core.errors import ModelError, RequestError

_PROBE = "tdpipe probe text"
_CONVERSATIONS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "user": (("user",), ("system", "user")),
    "system": (("system", "user"),),
    "assistant": (("user", "assistant", "user"), ("system", "user", "assistant", "user")),
}
"""Roles of the conversations in which the content of a role is looked for; templates refuse some of them."""


@dataclass(frozen=True, slots=True)
class TemplateMessage:
    """One message of a conversation."""

    role: str
    parts: tuple[str, ...]
    """Text parts, in order."""
    name: str | None = None

    @property
    def text(self) -> str:
        """All parts, joined by line breaks."""
        return "\n".join(self.parts)

    @property
    def characters(self) -> int:
        """Number of characters of all parts."""
        return sum(map(len, self.parts))


class ChatTemplate:
    """A Jinja template with the special tokens that it may name.

    Args:
        source: text of the template.
        special_tokens: text of each special token by its name, such as `bos_token`.

    Raises:
        ModelError: the template is no Jinja template, fails on every conversation, or shows the text of a user's
            message in neither form.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._source = source
        self._special_tokens = dict(special_tokens)
        self._parts_roles = frozenset(role for role in _CONVERSATIONS if self._wants_parts(role))

    def render(self, messages: Sequence[TemplateMessage]) -> str:
        """Render a conversation up to the beginning of the assistant's answer.

        Raises:
            RequestError: the template fails on these messages.
        """
        try:
            return self._render([self._for_template(message) for message in messages])
        except Exception as error:  # a template's own code may raise anything
            raise RequestError(
                f"messages: the model's chat template refuses these messages: {_reason(error)}",
                "messages",
            ) from error

    def _for_template(self, message: TemplateMessage) -> dict[str, Any]:
        content: object = message.text
        if message.role in self._parts_roles:
            content = [{"type": "text", "text": part} for part in message.parts]
        fields = {"role": message.role, "content": content}
        return fields if message.name is None else fields | {"name": message.name}

    def _render(self, messages: list[dict[str, Any]]) -> str:
        # Importing transformers takes half a second, which a server without chats need not wait for.
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered, _ = render_jinja_template(
            conversations=[messages],
            chat_template=self._source,
            add_generation_prompt=True,
            **self._special_tokens,
        )
        return str(rendered[0])

    def _wants_parts(self, role: str) -> bool:
        """Return whether the template shows the text of `role` only if it comes as a list of parts."""
        failure: Exception | None = None
        shown_nothing = False
        for in_parts in (False, True):
            for roles in _CONVERSATIONS[role]:
                try:
                    if _PROBE in self._render([_probe(each, role, in_parts) for each in roles]):
                        return in_parts
                    shown_nothing = True
                except Exception as error:  # a template's own code may raise anything
                    failure = failure or error
        if role != "user":  # many templates know no system message, and say so to whoever sends one
            return False
        problem = "shows a user's text neither from a string nor from a list of parts"
        if failure is not None and not shown_nothing:
            problem = f"fails on a user's message: {_reason(failure)}"
        raise ModelError(
            f"the checkpoint's chat template {problem}; give it one that does, in chat_template.jinja, or remove it "
            "to serve completions alone"
        )


def _probe(role: str, probed: str, in_parts: bool) -> dict[str, Any]:
    text = _PROBE if role == probed else "text"
    in_parts = in_parts and role == probed
    return {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    named = (
        text if type(error).__module__.startswith("jinja2") else f"{type(error).__name__}: {text}"
    )
    return named or type(error).__name__
