from __future__ import annotations

import pytest

from tdpipe.core.errors import ModelError, RequestError
from tdpipe.server.chat_template import ChatTemplate, TemplateMessage

STRING = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
PARTS = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text | trim }}{% endif %}{% endfor %}"
    "{% endfor %}"
)
INDEXED = "{% for m in messages %}<{{ m.role }}>{{ m.content[0]['text'] }}{% endfor %}"
EITHER = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}{% endfor %}"
)
USER_IN_PARTS = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'user' %}{% for part in m.content %}{{ part.text }}{% endfor %}"
    "{% else %}{{ m.content.strip() }}{% endif %}{% endfor %}"
)
CONVERSATION = (
    TemplateMessage("system", ("Be brief.",)),
    TemplateMessage("user", ("What is", "this?")),
    TemplateMessage("assistant", ("A test.",)),
    TemplateMessage("user", ("Thanks.",)),
)


@pytest.mark.parametrize("source", [STRING, PARTS, EITHER, USER_IN_PARTS])
def test_every_text_is_in_what_the_template_renders(source: str) -> None:
    rendered = ChatTemplate(source, {}).render(CONVERSATION)
    for message in CONVERSATION:
        assert all(part in rendered for part in message.parts)


def test_a_template_that_reads_the_first_part_alone_gets_it() -> None:
    rendered = ChatTemplate(INDEXED, {}).render([TemplateMessage("user", ("hello",))])
    assert rendered == "<user>hello"


def test_a_string_joins_the_parts_with_line_breaks() -> None:
    rendered = ChatTemplate(STRING, {}).render([TemplateMessage("user", ("a", "b"))])
    assert rendered == "<user>a\nb"


def test_a_template_that_wants_a_system_message_is_probed_with_one() -> None:
    source = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('begin with a system message') }}{% endif %}"
    ) + PARTS
    assert "hello" in ChatTemplate(source, {}).render(
        [TemplateMessage("system", ("s",)), TemplateMessage("user", ("hello",))]
    )


def test_special_tokens_are_there_by_name() -> None:
    template = ChatTemplate("{{ bos_token }}" + STRING, {"bos_token": "<s>"})
    assert template.render([TemplateMessage("user", ("x",))]) == "<s><user>x"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("nothing of the user's", "neither from a string nor from a list of parts"),
        ("{% for m in messages %}{{ m.content.wrong }}{% endfor %}", "neither from a string"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ raise_exception('never') }}", "fails on a user's message: never"),
        ("{{ messages[7].content }}{{ 1 / 0 }}", "fails on a user's message: .*"),
    ],
)
def test_a_template_that_cannot_work_is_refused_at_the_start(source: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        ChatTemplate(source, {})
    assert "chat_template.jinja" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("m.content[m.content.index(':')+1:]", "ValueError: substring not found"),
        ("m.content + 1", "TypeError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise_exception('speak up')", "speak up"),
        ("m.content.upper().missing.deeper", "has no attribute 'missing'"),
    ],
)
def test_whatever_a_template_raises_is_the_request_s_error(expression: str, said: str) -> None:
    source = (
        "{% for m in messages %}{% if m.content == 'x' %}{{ " + expression + " }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(
        RequestError, match=f"chat template refuses these messages: .*{said}"
    ) as caught:
        ChatTemplate(source, {}).render([TemplateMessage("user", ("x",))])
    assert caught.value.param == "messages"
